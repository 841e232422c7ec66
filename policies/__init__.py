"""The policies as they are shipped: Rego, data, schemas; `shipped` reads them."""
