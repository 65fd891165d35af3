"""What is done about a plain HTTP service. Where the cause lies elsewhere, nothing is yielded."""

from collections.abc import Iterator

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.runbooks.steps import step


@runbook(service=Kind.HTTP, symptoms={"down"}, title="The service is down")
def http_down(context: Context) -> Iterator[Remedy]:
    """Start the service where the inventory names its runtime.

    A page that answers with an error has no runbook: where it names a failing dependency, that is the place to act, and where it names
    none, a restart would be a guess. The same goes for a service that is silent, which may be waiting for a dependency itself.
    """
    if context.resource.runtime is None:
        return
    error = context.observation.reading.values.get("error")
    why = f"no connection is accepted ({error}); there is nothing to interrupt"
    yield Remedy(
        diagnosis="the service is not running",
        steps=(step(context, "http_restart", why),),
        expected="answers yes",
        evidence=("answers is refused",),
    )
