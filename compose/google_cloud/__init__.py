"""Google Cloud as far as evenkeel uses it: a control plane checked against Google's discovery documents, on real servers."""
