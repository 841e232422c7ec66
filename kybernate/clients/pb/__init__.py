"""The wire of every gRPC protocol we speak. The `*_pb2*` files are made by `make generate`."""
