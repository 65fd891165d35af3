"""The records' schema from revision to revision. A new one is a file in `versions`, numbered on; `tables` says what comes out."""
