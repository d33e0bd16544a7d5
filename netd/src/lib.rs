//! Host networking for containers: bridges, endpoints, NAT rules, published ports, names.

pub mod protocol;
