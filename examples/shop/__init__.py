"""A shop: sales takes orders and brings each to its end by a saga, asking products, payments and delivery over HTTP."""
