//! Why the record of a layerwise optimizer cannot be loaded.

use thiserror::Error;

use super::any::FROZEN;
use crate::tensor_file::TensorFileError;

/// Why a record cannot be loaded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// Bytes that are not a file of this kind.
    #[error("{0}")]
    File(#[from] TensorFileError),
    /// A file of another format or version.
    #[error("it must be a {expected}, but it is \"{format}\" of version \"{version}\"")]
    Version {
        /// The format, and the versions that are read.
        expected: String,
        /// The format of the file.
        format: String,
        /// Its version.
        version: String,
    },
    /// A part of the file that cannot be read.
    #[error("its {part} cannot be read: {message}")]
    Part {
        /// The part.
        part: String,
        /// Why not.
        message: String,
    },
    /// A parameter of the plan that the record does not have.
    #[error("it has no parameter \"{path}\"")]
    NoParameter {
        /// Its path.
        path: String,
    },
    /// A parameter of the record that the plan does not have.
    #[error("it has {what} \"{path}\", which the model does not have")]
    NotInModel {
        /// What the record has: the parameter, or its state.
        what: &'static str,
        /// Path of the parameter.
        path: String,
    },
    /// A parameter that is now updated by another optimizer.
    #[error("\"{path}\" was {} and is now {}", fate(was), fate(is))]
    Optimizer {
        /// Path of the parameter.
        path: String,
        /// The kind in the record.
        was: String,
        /// The kind in the plan.
        is: String,
    },
    /// A parameter of another shape.
    #[error("\"{path}\" had the shape {was:?} and now has the shape {is:?}")]
    Shape {
        /// Path of the parameter.
        path: String,
        /// Its shape in the record.
        was: Vec<usize>,
        /// Its shape in the plan.
        is: Vec<usize>,
    },
    /// A state that is incomplete.
    #[error("the state of \"{path}\" is incomplete or of another rank than its {parameter}")]
    Incomplete {
        /// Path of the parameter.
        path: String,
        /// Shape and element type of the parameter.
        parameter: String,
    },
    /// A buffer that does not fit.
    #[error(
        "the {name} of \"{path}\" has {was} and must have {is}: it was written for a parameter of another shape or element \
         type, or with other blocks or another axis"
    )]
    Buffer {
        /// Path of the parameter.
        path: String,
        /// Name of the buffer.
        name: String,
        /// Shape and element type in the record.
        was: String,
        /// What they must be.
        is: String,
    },
    /// A buffer that is missing.
    #[error("the state of \"{path}\" has no {name}: it was written with other settings, or is damaged")]
    Missing {
        /// Path of the parameter.
        path: String,
        /// Name of the buffer.
        name: String,
    },
    /// A parameter whose state is in two records that are to be one.
    #[error("both records have a state of \"{path}\"")]
    Twice {
        /// Path of the parameter.
        path: String,
    },
    /// A buffer that belongs to no parameter.
    #[error("it has a buffer \"{name}\", which belongs to no parameter")]
    Unknown {
        /// Path and name of the buffer.
        name: String,
    },
}

impl RecordError {
    /// The same error for a state that is stored under another name than the path of its parameter.
    pub(crate) fn at(mut self, own: &str) -> Self {
        if let Self::Incomplete { path, .. } | Self::Buffer { path, .. } | Self::Missing { path, .. } = &mut self {
            *path = own.to_string();
        }
        self
    }
}

/// What an optimizer of this name does with a parameter.
fn fate(optimizer: &str) -> String {
    if optimizer == FROZEN { optimizer.to_string() } else { format!("updated by {optimizer}") }
}
