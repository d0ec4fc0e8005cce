//! Devices by name. The only file of the project that names a backend.

use burn::tensor::{Device, Tensor};

use crate::error::DeviceError;
use crate::host::panics;
#[cfg(feature = "cuda")]
use crate::host::ranks::local_rank;
use crate::host::ranks::local_ranks;
use polaron_common::did_you_mean;

/// A device that this program can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name that `--device` takes.
    pub name: &'static str,
    /// Other names for the same device.
    pub aliases: &'static [&'static str],
    /// A description in one line.
    pub description: &'static str,
    /// Whether it computes on the CPU's threads.
    pub on_host: bool,
    /// Whether it is compiled into this program.
    pub compiled: bool,
}

impl DeviceInfo {
    /// The command that builds a program with this device.
    pub fn build_command(&self) -> String {
        format!("cargo build --release -p polaron-train --features {}", self.name)
    }
}

/// Every device, the preferred one first.
pub const DEVICES: &[DeviceInfo] = &[
    DeviceInfo {
        name: "flex",
        aliases: &["cpu"],
        description: "CPU, pure Rust, SIMD and all cores",
        on_host: true,
        compiled: cfg!(feature = "flex"),
    },
    DeviceInfo {
        name: "ndarray",
        aliases: &[],
        description: "CPU, Burn's older backend, slower; for cross-checks",
        on_host: true,
        compiled: cfg!(feature = "ndarray"),
    },
    DeviceInfo {
        name: "wgpu",
        aliases: &["vulkan"],
        description: "GPU through wgpu (Vulkan, Metal, DirectX 12)",
        on_host: false,
        compiled: cfg!(feature = "wgpu"),
    },
    DeviceInfo {
        name: "cuda",
        aliases: &[],
        description: "NVIDIA GPU; needs the CUDA libraries at run time",
        on_host: false,
        compiled: cfg!(feature = "cuda"),
    },
];

/// Name of the default device: the first one compiled in.
pub fn default_name() -> &'static str {
    DEVICES.iter().find(|device| device.compiled).map_or("flex", |device| device.name)
}

/// Finds a compiled-in device by name or alias.
///
/// # Errors
///
/// [`DeviceError::Unknown`] with the nearest name, [`DeviceError::NotCompiled`] with the command that builds it in.
pub fn find(name: &str) -> Result<&'static DeviceInfo, DeviceError> {
    let info = DEVICES.iter().find(|info| info.name == name || info.aliases.contains(&name));
    match info {
        Some(info) if info.compiled => Ok(info),
        Some(info) => Err(DeviceError::NotCompiled { name: info.name, command: info.build_command() }),
        None => {
            let names = DEVICES.iter().flat_map(|info| std::iter::once(info.name).chain(info.aliases.iter().copied()));
            let hint = did_you_mean(name, names);
            let known = DEVICES.iter().map(|info| info.name).collect::<Vec<_>>().join(", ");
            Err(DeviceError::Unknown { name: name.into(), hint, known })
        }
    }
}

/// Opens a device by name or alias and runs one small operation on it, so that a missing driver is found here and not in the
/// middle of the work. The device has no automatic differentiation.
///
/// # Errors
///
/// Those of [`find`], and [`DeviceError::CannotOpen`].
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let info = find(name)?;
    let probe = || {
        let device = construct(info.name)?;
        let one = Tensor::<1>::from_floats([1.0], &device);
        (one.clone() + one).try_into_data().ok().map(|_| device)
    };
    let message = match panics::catch(probe) {
        Ok(Some(device)) => return Ok(device),
        Ok(None) => "its first operation failed".into(),
        Err(message) => message,
    };
    Err(DeviceError::CannotOpen { name: info.name, message, fallback: default_name() })
}

fn construct(name: &str) -> Option<Device> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "kept for cross-checks as long as Burn has it")]
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        // Processes of one machine have a GPU each.
        "cuda" => Some(Device::cuda(local_rank())),
        _ => None,
    }
}

/// Sets how many threads the CPU devices use, once for the whole process; 0 means all. Returns the number in use. Also
/// tunes their matrix products (`polaron_models::tune_products`), which changes no result.
///
/// The sums of a CPU device may depend on this number, so it is part of a run's configuration, like its seed.
pub fn set_threads(threads: usize) -> usize {
    #[cfg(feature = "flex")]
    polaron_models::tune_products();
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    if let Err(error) = built {
        tracing::debug!("the thread pool exists already: {error}");
    }
    rayon::current_num_threads()
}

/// How many workers share the rows of a batch: one per thread on the CPU; on other devices 0, which means the calling thread.
///
/// # Errors
///
/// Those of [`find`].
pub fn workers(name: &str, threads: usize) -> Result<usize, DeviceError> {
    Ok(if find(name)?.on_host { threads } else { 0 })
}

/// How many threads 0 means on this machine: all that this process may use, shared with the other processes of its run.
pub fn all_threads() -> usize {
    (std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / local_ranks()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_names_the_nearest() {
        let said = find("flx").unwrap_err().to_string();
        assert!(said.contains("unknown device `flx`; did you mean `flex`?"), "{said}");
        assert!(said.contains("flex, ndarray, wgpu, cuda"), "{said}");
    }

    #[test]
    fn a_device_that_is_not_compiled_in_says_how_to_build_it() {
        for info in DEVICES.iter().filter(|info| !info.compiled) {
            let said = find(info.name).unwrap_err().to_string();
            assert!(said.contains(&format!("--features {}", info.name)), "{said}");
        }
    }

    #[test]
    fn an_alias_finds_the_same_device() {
        let by_alias = find("vulkan").map(|info| info.name);
        let by_name = find("wgpu").map(|info| info.name);
        assert_eq!(by_alias, by_name);
    }
}
