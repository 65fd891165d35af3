"""Evaluate planners: scenarios x planners x repeats, each case in a restored lab, judged without a model. Only on a lab."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.reset import require_lab, reset
from flows.scenario import ScenarioName, scenario, target_of
from tasks.catalog import load_catalog
from tasks.connecting import Live, live
from tasks.core.errors import EvenkeelError, Unreachable
from tasks.core.evaluation import Case, Trial, cases_of, part_of
from tasks.core.evaluation_summary import Settings, report_of
from tasks.core.scoring import INCONCLUSIVE, ScenarioResult, inconclusive
from tasks.evaluating import DEFAULT_SCENARIOS, LabGoneError, Results, conditions_of, run_cases
from tasks.reporting import publish_report, write_report
from tasks.reporting_plots import can_draw
from tasks.trying import steady_state

Planner = Literal["runbook", "gemini", "restart"]
DEFAULT_PLANNERS: tuple[Planner, ...] = ("runbook", "restart")
DIRECTORY = "build/evaluation"
STEADY_SECONDS = 60.0


@flow(name="evaluate", flow_run_name="Evaluate on {inventory}", persist_result=False)
async def evaluate(
    scenarios: list[ScenarioName] | None = None,
    planners: list[Planner] | None = None,
    repeats: int = 3,
    inventory: str = "lab",
    directory: str = DIRECTORY,
    timeout_seconds: float = 60,
    sustain_seconds: float = 5,
    swinging_neighbours: bool = True,
    part: int = 1,
    parts: int = 1,
    write: bool = True,
    command: str = "",
) -> State[Any]:
    """Try faults with several planners, several times each, and report how each did.

    Trials are kept one by one. A run that finds an unfinished evaluation under the same conditions in the directory goes on with it.

    Args:
        scenarios: The faults; empty: a part of the catalogue with every service and every way to end.
        planners: Who plans; empty: the runbooks, and for comparison a planner that only restarts. `gemini` needs an inventory with it.
        repeats: How often each fault is tried with each planner.
        inventory: Name of an inventory marked `lab: true`.
        directory: Where trials, report and plots are written, on the machine that runs the flow.
        timeout_seconds: How long detection and remediation of one may take together.
        sustain_seconds: How long everything must stay well after each remediation, while the fault's cause goes on.
        swinging_neighbours: Let what is not hurt swing just under its thresholds in every second repeat.
        part: Of several labs that share the directory, the number of this one.
        parts: How many labs share it.
        write: Write report and plots into the directory at the end; otherwise whoever started the parts does.
        command: What repeats the evaluation, for the report.
    """
    if repeats < 1 or not 1 <= part <= parts:
        raise ValueError("repeats, part, parts: give whole numbers from 1 on, and a part that is one of the parts")
    if write and not can_draw():
        raise ValueError("write: plots are drawn by Matplotlib, which comes with the extra `lab` of evenkeel; install it, or write nothing")
    async with live(inventory) as opened:
        require_lab(opened.inventory)
        settings = Settings(
            scenarios=_fitting(opened, scenarios or list(DEFAULT_SCENARIOS), is_chosen=bool(scenarios)),
            planners=tuple(planners or DEFAULT_PLANNERS),
            repeats=repeats,
            timeout_seconds=timeout_seconds,
            sustain_seconds=sustain_seconds,
            swinging=swinging_neighbours,
            command=command or _command(inventory),
        )
        if "gemini" in settings.planners and opened.gemini is None:
            raise ValueError(f"planners: inventory {inventory!r} does not say how Gemini is asked; register it with a section `gemini:`")
        results, conditions = Results(Path(directory).absolute()), conditions_of(settings, inventory)
        all_cases = cases_of(settings.scenarios, settings.planners, repeats, swinging=swinging_neighbours)
        cases = part_of(all_cases, part, parts)
        progress = await acreate_progress_artifact(0, key=f"evaluation-progress-{inventory}", description=f"{len(cases)} cases")

        async def told(done: dict[str, Trial]) -> None:
            mine = [done[case.key] for case in cases if case.key in done]
            told = f"{len(mine)} of {len(cases)} cases, {sum(one.succeeded for one in mine)} succeeded; last: {mine[-1].case.key}"
            await aupdate_progress_artifact(progress, 100 * len(mine) / len(cases), description=told)

        is_doubtful = True  # whoever was killed here may have left a fault behind

        async def try_one(case: Case) -> ScenarioResult:
            nonlocal is_doubtful
            if is_doubtful:
                await _restored(opened)
            result = await _tried(opened, case, settings)
            is_doubtful = result.outcome == INCONCLUSIVE
            return result

        await run_cases(cases, results, conditions, try_one, told)
        done = results.trials(conditions)
        report = report_of(settings, [done[case.key] for case in all_cases if case.key in done])
        await publish_report(report, inventory)
        if write:
            write_report(report, results.directory)
            results.finish()
    succeeded = ", ".join(f"{one.planner} {one.success_rate.hits} of {one.success_rate.n}" for one in report.planners)
    where = f"; {results.directory / 'report.md'}" if write else ""
    return Completed(message=f"{len(report.trials)} trials, succeeded: {succeeded}{where}")


def _fitting(opened: Live, names: list[str], *, is_chosen: bool) -> tuple[str, ...]:
    """The scenarios that the inventory has what it needs for; where a person chose them, ValueError names one that it has not."""
    known, fitting = load_catalog().scenarios, []
    for name in names:
        if name not in known:
            raise ValueError(f"scenarios: no scenario {name!r}; known: {', '.join(known)}")
        try:
            target_of(known[name], opened.inventory)
        except ValueError as error:
            if is_chosen:
                raise
            get_run_logger().info("left out: %s", error)
            continue
        fitting.append(name)
    return tuple(fitting)


def _command(inventory: str) -> str:
    return f"prefect deployment run evaluate/by-hand --param inventory={inventory}"


async def _tried(opened: Live, case: Case, settings: Settings) -> ScenarioResult:
    """One trial. Where it says nothing, that is its result, unless the lab itself is gone: LabGoneError, and the case is tried again."""
    state: State[Any] = await scenario(
        case.scenario,
        opened.inventory.name,
        settings.timeout_seconds,
        settings.sustain_seconds,
        planner=case.planner,
        neighbours=case.neighbours,
        return_state=True,
    )
    found = await state.aresult(raise_on_failure=False)
    if isinstance(found, ScenarioResult):
        return found
    await require_there(opened)
    return inconclusive(load_catalog().scenarios[case.scenario], state.message or "no result")


async def _restored(opened: Live) -> None:
    """The whole lab at its baseline, steady; NotSteadyError names what is not: then nothing more can be tried in it."""
    await require_there(opened)
    await reset(opened.inventory.name)
    await steady_state(STEADY_SECONDS)


async def require_there(opened: Live) -> None:
    """LabGoneError where nothing that runs the lab's servers answers."""
    runtimes = [getattr(opened.tool_client(one), "runtime", None) for one in opened.inventory.resources]
    known = [runtime for runtime in runtimes if runtime is not None]
    for runtime in known:
        try:
            await runtime.status()
        except Unreachable:
            continue
        except EvenkeelError:
            return
        return
    if known:
        raise LabGoneError(f"inventory {opened.inventory.name!r}: what runs its servers does not answer; start the lab and run this again")
