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

/// A device as it was asked for: `cuda`, or `cuda:1` for the second one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    info: &'static DeviceInfo,
    index: Option<usize>,
}

impl Asked {
    fn new(name: &str) -> Result<Self, DeviceError> {
        let Some((base, index)) = name.split_once(':') else { return Ok(Self { info: by_name(name)?, index: None }) };
        let info = by_name(base)?;
        let refuse = |reason| DeviceError::Index { name: name.into(), reason };
        if info.on_host {
            return Err(refuse("the CPU is one device and takes no number"));
        }
        let index = index.parse().map_err(|_| refuse("a number from 0 must follow the colon, as in `cuda:0`"))?;
        Ok(Self { info, index: Some(index) })
    }

    /// Its name with its index.
    fn name(self) -> String {
        self.index.map_or_else(|| self.info.name.into(), |index| format!("{}:{index}", self.info.name))
    }

    fn construct(self) -> Result<Device, String> {
        let name = self.info.name;
        let Some(index) = self.index else { return construct(name).ok_or_else(|| "it is not compiled in".into()) };
        let devices = all(name);
        let count = devices.len();
        let none = || format!("this machine has {count} of them; the first is `{name}:0`");
        devices.into_iter().nth(index).ok_or_else(none)
    }
}

/// Finds a compiled-in device by name or alias, with or without an index.
///
/// # Errors
///
/// [`DeviceError::Unknown`] with the nearest name, [`DeviceError::NotCompiled`] with the command that builds it in,
/// [`DeviceError::Index`] for an index that is none.
pub fn find(name: &str) -> Result<&'static DeviceInfo, DeviceError> {
    Ok(Asked::new(name)?.info)
}

/// The name of a device without aliases, with its index if it has one.
///
/// # Errors
///
/// Those of [`find`].
pub fn plain_name(name: &str) -> Result<String, DeviceError> {
    Ok(Asked::new(name)?.name())
}

fn by_name(name: &str) -> Result<&'static DeviceInfo, DeviceError> {
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

/// Opens a device by name or alias, with or without an index, and runs one small operation on it, so that a missing driver is found here and not in the
/// middle of the work. The device has no automatic differentiation.
///
/// # Errors
///
/// Those of [`find`], and [`DeviceError::CannotOpen`].
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let asked = Asked::new(name)?;
    let probe = || {
        let device = asked.construct()?;
        let one = Tensor::<1>::from_floats([1.0], &device);
        let done = (one.clone() + one).try_into_data();
        done.map(|_| device).map_err(|_| "its first operation failed".to_owned())
    };
    match panics::catch(probe) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(message)) | Err(message) => {
            Err(DeviceError::CannotOpen { name: asked.name(), message, fallback: default_name() })
        }
    }
}

/// All devices of a kind on this machine, in the order of their indices.
fn all(name: &str) -> Vec<Device> {
    match name {
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_iter().collect(),
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().collect(),
        _ => Vec::new(),
    }
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
        // Processes of one machine have a GPU each, unless an index says which.
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
    fn a_device_of_the_cpu_takes_no_index_and_an_index_is_a_number() {
        for name in ["flex:0", "cpu:1"] {
            let said = find(name).unwrap_err().to_string();
            assert!(said.contains(&format!("`{name}`")) && said.contains("takes no number"), "{said}");
        }
        assert_eq!(plain_name("cpu").unwrap(), "flex");
        let gpu = DEVICES.iter().find(|info| !info.on_host && info.compiled);
        for index in ["", "x", "-1", "1:2"] {
            let Some(info) = gpu else { break };
            let said = find(&format!("{}:{index}", info.name)).unwrap_err().to_string();
            assert!(said.contains("a number from 0"), "{said}");
        }
    }

    #[test]
    fn an_index_is_part_of_a_devices_name_and_one_that_does_not_exist_cannot_be_opened() {
        let Some(info) = DEVICES.iter().find(|info| !info.on_host && info.compiled) else { return };
        let name = format!("{}:4242", info.aliases.first().unwrap_or(&info.name));
        assert_eq!(plain_name(&name).unwrap(), format!("{}:4242", info.name));
        let said = open(&name).unwrap_err().to_string();
        assert!(said.contains(":4242` cannot be opened") && said.contains("of them; the first is"), "{said}");
        assert!(all(info.name).is_empty() || open(&format!("{}:0", info.name)).is_ok());
    }

    #[test]
    fn an_alias_finds_the_same_device() {
        let by_alias = find("vulkan").map(|info| info.name);
        let by_name = find("wgpu").map(|info| info.name);
        assert_eq!(by_alias, by_name);
    }
}
