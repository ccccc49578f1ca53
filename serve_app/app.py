"""Composition root: from a Serve config's `args` to a running application, top to bottom."""

import os
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig, DeploymentActorConfig

from monitoring.actor import MonitoringAgentActor
from serve_app import startup
from serve_app.agents import agent_name
from serve_app.grpc import binding
from serve_app.http import ingress
from serve_app.model_server import ModelServer
from serve_app.secrets import masking_key
from serve_app.serve_config import check_settings
from serve_app.settings import Settings
from serve_app.wiring import agent_options, masking_policy

SHUTDOWN_TIMEOUT_S = 20.0  # covers the last hand-over to the agent


def build(settings: Settings) -> Application:
    """Build the application `serve run` deploys; ``settings`` are the config's `args`.

    A missing bundle, one that cannot answer beside the champion, and an impossible masking policy
    are refused here, before anything starts.
    """
    settings = settings.resolved()
    serving = settings.serving
    check_settings(settings)
    key = masking_key(settings.masking.key_env, settings.state_dir)
    policy = masking_policy(settings.masking, key)
    policy_ids = [policy.policy_id, policy.for_feedback().policy_id]
    agents: list[DeploymentActorConfig | dict[Any, Any]] = [
        DeploymentActorConfig(
            name=agent_name(shard),
            actor_class=MonitoringAgentActor,
            init_kwargs={"options": agent_options(settings, shard, policy_ids)},
            actor_options={"num_cpus": 0},
        )
        for shard in range(settings.agent.shards)
    ]
    deployment = serve.deployment(
        name="ModelServer",
        num_replicas=serving.num_replicas,
        ray_actor_options={
            "num_cpus": serving.num_cpus,
            "runtime_env": {
                "env_vars": {
                    **startup.variables(os.environ),
                    **binding.variables(os.environ, serving.max_body_bytes),
                    **(ingress.variables(os.environ) if serving.fast_path else {}),
                }
            },
        },
        max_ongoing_requests=serving.max_ongoing_requests,
        max_queued_requests=serving.max_queued_requests,
        backpressure_config=BackpressureConfig(
            status_code=429, retry_after_s=serving.retry_after_s
        ),
        graceful_shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        health_check_period_s=5,
        deployment_actors=agents,
    )(serve.ingress()(ModelServer))
    return deployment.bind(settings.model_dump(), key)
