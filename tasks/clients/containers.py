"""A ready client for one container."""

from dataclasses import dataclass, field

from blocks.runtimes import ContainerRuntime
from blocks.schema import Resource
from tasks.clients.container_engine import ContainerEngine
from tasks.clients.container_facts import Inspected
from tasks.clients.container_watch import EngineWatch, Watched, hold, let_go
from tasks.clients.runtime import ContainerProcess
from tasks.core.errors import ProbeBroken, Unreachable


@dataclass
class ContainerClient:
    """Calls to the engine for one container, and what the shared watch of the engine knows of it."""

    resource: Resource
    runtime: ContainerProcess
    _watch: EngineWatch | None = field(default=None, repr=False)

    @property
    def engine(self) -> ContainerEngine:
        """The engine that runs it."""
        return self.runtime.engine

    @property
    def name(self) -> str:
        """The container's name."""
        return self.runtime.container

    @property
    def watch(self) -> EngineWatch:
        """The watch of its engine; the first use begins it."""
        if self._watch is None:
            self._watch = hold(self.engine.url)
        return self._watch

    async def current(self) -> Watched:
        """What the watch knows of it; ProbeBroken where it knows nothing that holds now."""
        return await self.watch.current(self.name)

    async def watched(self, *, sampled: bool) -> Watched:
        """The same for tools, with figures where they are needed: Unreachable in place of ProbeBroken."""
        try:
            return await self.watch.current(self.name, sampled=sampled)
        except ProbeBroken as error:
            raise Unreachable(str(error)) from error

    async def inspect(self) -> Inspected:
        """What the engine tells now, asked anew; NotApplicable where there is no such container."""
        return await self.engine.inspect(self.name)

    async def close(self) -> None:
        """Let the watch go."""
        if self._watch is not None:
            self._watch = None
            await let_go(self.engine.url)


def open_container(resource: Resource) -> ContainerClient:
    """A client of a resource of kind container; connections are made when they are first needed."""
    runtime = resource.container or ContainerRuntime(container=resource.address)
    return ContainerClient(resource, ContainerProcess(ContainerEngine(runtime.engine), runtime.container))
