"""
Who may call a gRPC server, by the name in the certificate, not by having one.

Called by: servers, as an interceptor. Our authority also gives certificates to kube-scheduler and
to servers; those are for other doors. Rule: a method whose callers are not named is refused.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

_SAN = "x509_subject_alternative_name"

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Interceptor = grpc.ServerInterceptor[Any, Any]
    Context = grpc.ServicerContext
else:
    Handler = object
    Interceptor = grpc.ServerInterceptor
    Context = object

Allowed = Callable[[str], frozenset[bytes]]
"""The names that may call a method (`Agent/Park` is `Park`)."""


def names_of(context: Context) -> frozenset[bytes]:
    """The names in the certificate of whoever calls."""
    return frozenset(context.auth_context().get(_SAN, ()))  # type: ignore[arg-type]


class Callers(Interceptor):
    """Lets in who is named, and says to all others that they are not."""

    def __init__(self, allowed: Allowed, refused: str) -> None:
        """`refused` is told to those who are not."""
        self._allowed, self._refused = allowed, refused

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """As gRPC calls it, once for each request."""
        handler = continuation(details)
        if handler is None:
            return None
        allowed = self._allowed(details.method.rpartition("/")[2])
        coding = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            answer = self._asked(handler.unary_unary, allowed)
            return grpc.unary_unary_rpc_method_handler(answer, *coding)
        if handler.stream_unary is not None:
            answer = self._asked(handler.stream_unary, allowed)
            return grpc.stream_unary_rpc_method_handler(answer, *coding)
        if handler.unary_stream is not None:
            follow = self._followed(handler.unary_stream, allowed)
            return grpc.unary_stream_rpc_method_handler(follow, *coding)
        return None

    def _asked(self, answer: Callable[[Any, Context], Any], allowed: frozenset[bytes]) -> Any:
        def guarded(request: Any, context: Context) -> Any:
            self._check(context, allowed)
            return answer(request, context)

        return guarded

    def _followed(
        self, answer: Callable[[Any, Context], Iterator[Any]], allowed: frozenset[bytes]
    ) -> Any:
        def guarded(request: Any, context: Context) -> Iterator[Any]:
            self._check(context, allowed)
            yield from answer(request, context)

        return guarded

    def _check(self, context: Context, allowed: frozenset[bytes]) -> None:
        if allowed.isdisjoint(names_of(context)):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, self._refused)
