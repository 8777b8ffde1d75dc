//! What every controller needs and none is about: work queue, backoff, ownership, the loop.
