"""Who may call an agent over the network: by the name in the certificate, not by having one.

Called by: `servers`. Our authority also gives certificates to kube-scheduler and to servers; those
are for other doors. Rule: every method is asked by one message; any other kind is refused.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from kybernate.api import names

ALLOWED = frozenset({names.CLIENT.encode(), names.AGENT_CLIENT.encode()})
# An activator stands where everybody may come: it wakes, looks, and tells what it holds, no more.
ACTIVATOR = names.ACTIVATOR_CLIENT.encode()
ACTIVATORS_METHODS = frozenset({"Activate", "Watch", "ReportDemand"})
_SAN = "x509_subject_alternative_name"
_REFUSED = f"this certificate is not {names.CLIENT}'s, who may ask agents"

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Interceptor = grpc.ServerInterceptor[Any, Any]
else:
    Handler = object
    Interceptor = grpc.ServerInterceptor


class Callers(Interceptor):
    """Lets in who is named, and says to all others that they are not."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """As gRPC calls it, once for each request."""
        handler = continuation(details)
        if handler is None:
            return None
        method = details.method.rpartition("/")[2]
        allowed = ALLOWED | {ACTIVATOR} if method in ACTIVATORS_METHODS else ALLOWED
        coding = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _asked(handler.unary_unary, allowed), *coding
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _followed(handler.unary_stream, allowed), *coding
            )
        return None


def _asked(answer: Callable[[Any, grpc.ServicerContext], Any], allowed: frozenset[bytes]) -> Any:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        _check(context, allowed)
        return answer(request, context)

    return guarded


def _followed(
    answer: Callable[[Any, grpc.ServicerContext], Iterator[Any]], allowed: frozenset[bytes]
) -> Any:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        _check(context, allowed)
        yield from answer(request, context)

    return guarded


def _check(context: grpc.ServicerContext, allowed: frozenset[bytes]) -> None:
    if allowed.isdisjoint(context.auth_context().get(_SAN, ())):
        context.abort(grpc.StatusCode.PERMISSION_DENIED, _REFUSED)
