"""``treeline promote``: what a config's written rule says now, and, if asked to, doing it."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import typer
import yaml
from pydantic import ValidationError

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.compare.metrics import metric_named
from monitoring.analysis.compare.report import READ_COLUMNS, Plan, Report, report
from monitoring.analysis.compare.rule import Action, Decision, Rule, decide
from monitoring.analysis.stored import Span, read_answers, read_feedback
from serve_app.cli.deploy import DASHBOARD, serve_deploy
from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.output import AsJson, print_json
from serve_app.section import complaint
from serve_app.serve_config import (
    IMPORT_PATH,
    ServeConfigInvalid,
    deployment_of,
    our_applications,
    read_config,
)
from serve_app.settings import Settings, UserConfig
from serve_app.traffic import promoted, rolled_back, shares_at
from serve_app.traffic_settings import Rule as RuleSettings
from serve_app.traffic_settings import Traffic
from serve_app.wiring import agent_options

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What a Serve config says about the version that is tried."""

    settings: Settings
    traffic: Traffic
    rule: RuleSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``traffic`` is the split that follows; None while there is nothing to change,
    as ``report`` is while there is nothing to compare.
    """

    at: datetime
    version: str
    action: Action
    reason: str
    traffic: dict[str, Any] | None
    applied: bool
    report: Report | None


@app.command()
def promote(
    config: Annotated[Path, typer.Argument(help="A Serve config with `traffic.rule`.")],
    *,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the config that follows; may be CONFIG, but comments go."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Also deploy the written config. Needs --write.")
    ] = False,
    address: Annotated[str, typer.Option(help="Ray's dashboard, for --apply.")] = DASHBOARD,
    every: Annotated[
        float | None, typer.Option(min=1, help="Look again each so many seconds until decided.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold `traffic.rule` against the log: promote, rollback or wait. Changes nothing by itself.

    Exit code 1: the version is rolled back.
    """
    if apply and write is None:
        raise typer.BadParameter("--apply needs --write: what runs must stand in a file")
    document = read_config(config)
    try:
        experiment = read_experiment(document)
        while True:
            verdict = judge(experiment, datetime.now(UTC))
            if verdict.action != "wait" or every is None:
                break
            typer.echo(_line(verdict), err=True)
            time.sleep(every)
    except ValidationError as exc:
        raise typer.BadParameter(complaint(exc)) from exc
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if verdict.traffic is not None and write is not None:
        write.write_text(yaml.safe_dump(with_traffic(document, verdict.traffic), sort_keys=False))
        if apply:
            serve_deploy(write, address)
            verdict = replace(verdict, applied=True)
    if as_json:
        print_json(verdict)
    else:
        typer.echo(_line(verdict))
    raise typer.Exit(FINDING if verdict.action == "rollback" else GOOD)


def read_experiment(document: dict[str, Any]) -> Experiment:
    """Check what the config says. Raises ServeConfigInvalid, or ValueError for settings."""
    application = our_application(document)
    user_config = UserConfig.model_validate(deployment_of(application).get("user_config") or {})
    rule = user_config.traffic.rule
    if rule is None:
        raise ServeConfigInvalid("the config has no `user_config.traffic.rule` to decide by")
    settings = Settings.model_validate(application.get("args") or {}).resolved()
    return Experiment(settings=settings, traffic=user_config.traffic, rule=rule)


def our_application(document: dict[str, Any]) -> dict[str, Any]:
    ours = our_applications(document)
    if len(ours) != 1:
        raise ServeConfigInvalid(
            f"the config has {len(ours)} applications with import_path {IMPORT_PATH}; allowed: one"
        )
    (application,) = ours
    return dict(application)


def with_traffic(document: dict[str, Any], traffic: dict[str, Any]) -> dict[str, Any]:
    """Return the config with another split, all else as it is."""
    ours = our_application(document)
    deployment = deployment_of(ours)
    user_config = {**(deployment.get("user_config") or {}), "traffic": traffic}
    others = [d for d in ours.get("deployments") or [] if d.get("name") != "ModelServer"]
    deployments = [{**deployment, "user_config": user_config}, *others]
    return {
        **document,
        "applications": [
            {**each, "deployments": deployments} if each.get("import_path") == IMPORT_PATH else each
            for each in document["applications"]
        ],
    }


def judge(experiment: Experiment, now: datetime) -> Verdict:
    """Read the log since the rule's start and decide."""
    rule, traffic = experiment.rule, experiment.traffic
    sink = msgspec.convert(agent_options(experiment.settings, 0, [])["sink"], SinkSettings)
    written = Rule(version=rule.version, margins=rule.margins, min_units=rule.min_units)
    model, control = experiment.settings.model.name, experiment.settings.model.version
    answers = read_answers(sink, model, Span(start=rule.since, end=None), READ_COLUMNS)
    # Others may have been asked by name; they are no part of the split.
    answers = answers.filter(pc.is_in(answers["version"], pa.array(named(traffic, control))))
    seen = answers["version"].unique().to_pylist()
    lacking = [version for version in (control, rule.version) if version not in seen]
    found = None
    if lacking:
        since = rule.since.isoformat(timespec="seconds")
        decision = Decision(
            action="wait", reason=f"no answers of {', '.join(lacking)} in the log since {since}"
        )
    else:
        feedback = read_feedback(sink, model, rule.since)
        found = report(answers, feedback, plan_of(experiment, now), looks=0)
        decision = decide(written, found)
    follows = follow(traffic, rule.version, decision)
    return Verdict(
        at=now,
        version=rule.version,
        action=decision.action,
        reason=decision.reason,
        traffic=None if follows is None else follows.model_dump(mode="json", exclude_defaults=True),
        applied=False,
        report=found,
    )


def named(traffic: Traffic, champion: str) -> list[str]:
    """Return the versions that take part."""
    others = [] if traffic.canary is None else [traffic.canary.version]
    others += [] if traffic.rule is None else [traffic.rule.version]
    return sorted({champion, *traffic.shares, *traffic.shadows, *others})


def plan_of(experiment: Experiment, now: datetime) -> Plan:
    """Plan the comparison; the split can be checked where it has not moved since the start."""
    rule, traffic = experiment.rule, experiment.traffic
    champion = experiment.settings.model.version
    then = shares_at(traffic, champion, rule.since.timestamp())
    steady = then == shares_at(traffic, champion, now.timestamp())
    return Plan(
        metrics=tuple(metric_named(name) for name in rule.margins),
        alpha=rule.alpha,
        plan_units=rule.plan_units,
        unit=traffic.unit,
        control=champion,
        split={v: share for v, share in then.items() if share > 0.0} if steady else None,
    )


def follow(traffic: Traffic, version: str, decision: Decision) -> Traffic | None:
    """Return the split that a decision asks for."""
    reason = f"{decision.action} {version}: {decision.reason}"[:500]
    match decision.action:
        case "promote":
            return promoted(traffic, version, reason)
        case "rollback":
            return rolled_back(traffic, version, reason)
        case "wait":
            return None


def _line(verdict: Verdict) -> str:
    done = " (deployed)" if verdict.applied else ""
    at = verdict.at.isoformat(timespec="seconds")
    return f"{at} {verdict.action} {verdict.version}{done}: {verdict.reason}"
