//! Why a device cannot be used.

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device has this name.
    #[error(
        "unknown device `{name}`{hint} (the devices are {known}; `polaron list devices` shows which are compiled in)"
    )]
    Unknown {
        /// The name that was given.
        name: String,
        /// Empty, or a question that proposes the nearest name.
        hint: String,
        /// All names, comma separated.
        known: String,
    },
    /// The device exists but this program was built without it.
    #[error("the device `{name}` is not compiled into this program: build one that has it with `{command}`")]
    NotCompiled {
        /// The device.
        name: &'static str,
        /// The command that builds a program with it.
        command: String,
    },
    /// What follows the colon is no index, or the device has none.
    #[error("unknown device `{name}`: {reason}")]
    Index {
        /// The name that was given.
        name: String,
        /// What is wrong with its index.
        reason: &'static str,
    },
    /// The hardware or its driver is missing.
    #[error("the device `{name}` cannot be opened ({message}): check its driver, or use `--device {fallback}`")]
    CannotOpen {
        /// The device, with its index.
        name: String,
        /// The message of the backend.
        message: String,
        /// A device that always works.
        fallback: &'static str,
    },
}
