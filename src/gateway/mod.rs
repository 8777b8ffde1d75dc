//! The client side of a gateway: frames, handshake, one multiplexed connection, typed methods, probing.
