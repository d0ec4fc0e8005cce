//! Visits of a module that know the current parameter, and changes of parameters outside of the autodiff graph.

mod form;
mod graph;
mod walk;

pub(crate) use form::Form;
pub(crate) use graph::map_outside_graph;
pub(crate) use walk::{Paths, Walk, follow};
