"""The rules of an inventory as a block, so that a person can change them in the UI."""

from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockDocument
from pydantic import Field, ValidationError

from blocks.errors import ConfigurationError
from blocks.schema import Rules


class PolicyBlock(Block):
    """What may be done to an inventory without a person; saved under the inventory's name by `python -m blocks.register`.

    What is edited here counts from the next run on. Registering writes the `rules` of the YAML file over it.
    """

    _block_type_name = "Evenkeel Policy"
    _block_type_slug = "evenkeel-policy"

    rules: Rules = Field(description="The rules; every remediation is authorised by them, whoever planned it.")


def rules_of(document: BlockDocument) -> Rules:
    """The rules that a saved policy holds. ConfigurationError names every field that is wrong, and where to mend it."""
    try:
        return Rules.model_validate(document.data.get("rules"))
    except ValidationError as error:
        problems = [(".".join(("rules", *map(str, problem["loc"]))), problem["msg"]) for problem in error.errors(include_input=False)]
        remedy = f"edit the Evenkeel Policy block {document.name!r} in the UI, or register the YAML file again"
        raise ConfigurationError([f"policy {document.name!r}: {field}: {said}; {remedy}" for field, said in problems]) from error
