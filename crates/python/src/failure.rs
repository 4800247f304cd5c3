//! What goes wrong, as Python's exceptions: with the words of the libraries, which are those of the command line.

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};

/// An exception that is to be raised.
pub struct Failure(PyErr);

impl Failure {
    /// An argument that cannot be used.
    pub fn value(message: impl Into<String>) -> Self {
        Self(PyValueError::new_err(message.into()))
    }

    /// A bug of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        Self(PyRuntimeError::new_err(message.into()))
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<gpt2::Error> for Failure {
    fn from(error: gpt2::Error) -> Self {
        let message = error.to_string();
        Self(match &error {
            gpt2::Error::ModelNotFound { .. } => PyFileNotFoundError::new_err(message),
            gpt2::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                PyFileNotFoundError::new_err(message)
            }
            gpt2::Error::Io { .. } => PyOSError::new_err(message),
            _ => PyValueError::new_err(message),
        })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}

/// Errors that are about arguments.
macro_rules! values {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::value(error.to_string())
            }
        }
    )*};
}

values!(
    String,
    patching::Error,
    patching::path::Error,
    patching::prompts::Error,
    patching::circuit::file::Error,
    lens::Error,
    grids::Error,
    figures::Undrawable
);

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::bug(error.to_string())
    }
}
