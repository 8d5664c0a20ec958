//! Real servers, real clients and the agent under test.
