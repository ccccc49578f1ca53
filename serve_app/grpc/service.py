"""``inference.GRPCInferenceService`` as Ray Serve's gRPC server takes it.

The server calls a deployment's methods by the names of the protocol.
"""

from importlib.metadata import version
from typing import Any, Final

import grpc

from serve_app.grpc import open_inference_pb2 as messages
from serve_app.grpc.binding import require_chosen_host
from serve_app.grpc.inference import Inference
from serve_app.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from serve_app.grpc.refusals import CallContext

EXTENSIONS: Final = ("missing_parameter", "context_parameter")  # docs/http.md explains both


class InferenceMethods:
    """The protocol's methods, for a deployment whose ``inference`` answers them.

    ``grpc_context`` is the name under which Ray Serve hands a method its call's context.
    """

    inference: Inference

    async def ServerLive(self, _: ServerLiveRequest) -> ServerLiveResponse:  # noqa: N802
        return ServerLiveResponse(live=True)

    async def ServerReady(self, _: ServerReadyRequest) -> ServerReadyResponse:  # noqa: N802
        # A replica takes requests from the moment its model is loaded and proved: it is ready.
        return ServerReadyResponse(ready=True)

    async def ServerMetadata(self, _: ServerMetadataRequest) -> ServerMetadataResponse:  # noqa: N802
        return ServerMetadataResponse(
            name="treeline", version=version("treeline-serve"), extensions=EXTENSIONS
        )

    async def ModelReady(  # noqa: N802
        self, request: ModelReadyRequest, grpc_context: CallContext
    ) -> ModelReadyResponse:
        return self.inference.is_ready(request, grpc_context)

    async def ModelMetadata(  # noqa: N802
        self, request: ModelMetadataRequest, grpc_context: CallContext
    ) -> ModelMetadataResponse:
        return self.inference.metadata(request, grpc_context)

    async def ModelInfer(  # noqa: N802
        self, request: ModelInferRequest, grpc_context: CallContext
    ) -> ModelInferResponse:
        return await self.inference.infer(request, grpc_context)


def add_inference_service(servicer: Any, server: grpc.Server) -> None:
    """Name the service to Ray Serve's gRPC server: an entry of ``grpc_servicer_functions``.

    Ray Serve puts handlers of its own in the place of ``servicer``'s methods. Raises
    NotOnLoopbackError where the server would listen on all interfaces unasked.
    """
    require_chosen_host()
    service = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=getattr(messages, method.input_type.name).FromString,
            response_serializer=getattr(messages, method.output_type.name).SerializeToString,
        )
        for method in service.methods
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))
