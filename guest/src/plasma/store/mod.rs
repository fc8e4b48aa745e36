//! Statements over the system tables.
