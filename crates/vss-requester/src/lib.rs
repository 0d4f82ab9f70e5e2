//! vss-requester
