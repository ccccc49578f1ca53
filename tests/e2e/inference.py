"""A client of the Open Inference Protocol over gRPC, as generated code would be."""

import grpc

from serve_app.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
)

SERVICE = "/inference.GRPCInferenceService"


class Stub:
    def __init__(self, channel: grpc.Channel) -> None:
        self.infer = channel.unary_unary(
            f"{SERVICE}/ModelInfer",
            request_serializer=ModelInferRequest.SerializeToString,
            response_deserializer=ModelInferResponse.FromString,
        )
        self.describe = channel.unary_unary(
            f"{SERVICE}/ModelMetadata",
            request_serializer=ModelMetadataRequest.SerializeToString,
            response_deserializer=ModelMetadataResponse.FromString,
        )
