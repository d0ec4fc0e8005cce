//! The memory of a rule: named buffers, and their record.
//!
//! The record is written by hand: the derive of Burn 0.22 rebuilds tensors in the device's default dtype, so f64 and
//! half-precision runs could not resume. Everything in it has a name. Records of the first version had a number for the
//! form of the momentum, and one buffer `memory` for everything else that a rule kept; they can still be read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::optim::{RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};

use super::MomentumForm;
use crate::matrix::Axis;

/// The buffer of the momentum, shaped like the parameter.
pub(crate) const MOMENTUM: &str = "momentum";
/// The one buffer of a rule in records of the first version.
const FIRST_VERSION: &str = "memory";
const STEP: &str = "step";
const FORM: &str = "form";
/// The names of the buffers in a record, as text: in Burn a state can only read what it asks for by name.
pub(crate) const NAMES: &str = "memories";

/// How large a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// A number for every entry of the parameter.
    Entries,
    /// A number for every unit of a matrix.
    Units,
    /// A number for every pair of units along an axis of a matrix, or none if the axis has more than `largest` units.
    Pairs {
        /// The axis.
        axis: Axis,
        /// The most units.
        largest: usize,
    },
}

impl Extent {
    /// How many numbers it has, for each of `matrices` of this size.
    pub(crate) fn numbers(self, matrices: usize, outputs: usize, inputs: usize) -> usize {
        let each = match self {
            Extent::Entries => outputs * inputs,
            Extent::Units => outputs.max(inputs),
            Extent::Pairs { axis, largest } => {
                let size = if axis == Axis::Output { outputs } else { inputs };
                if size <= largest { size * size } else { 0 }
            }
        };
        matrices * each
    }
}

/// A buffer that a rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name in records.
    pub name: &'static str,
    /// Its size.
    pub extent: Extent,
}

impl Kept {
    /// A buffer with a number for every entry.
    pub const fn entries(name: &'static str) -> Self {
        Self { name, extent: Extent::Entries }
    }

    /// A buffer with a number for every unit.
    pub const fn units(name: &'static str) -> Self {
        Self { name, extent: Extent::Units }
    }
}

/// What is kept between steps for one parameter, or for a stack of parameters of one shape: tensors by name.
///
/// The first axis of every tensor counts matrices, so that parameters of one shape can be stepped as one stack; the meaning
/// of the other axes is up to the rule. Memories are part of the state: they are saved and loaded with it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Steps taken.
    pub(super) step: u64,
    /// The form in which the momentum was accumulated.
    pub(super) form: MomentumForm,
    slots: BTreeMap<Cow<'static, str>, Slot>,
    /// The shape of the parameter as it is read; a buffer of this shape that is kept now has a number for every entry.
    pub(super) like: Option<[usize; 3]>,
}

/// The beginning of the names of the memories of one section of a parameter.
fn section_prefix(number: usize) -> String {
    format!("part{number}.")
}

#[derive(Clone, Debug)]
struct Slot {
    tensor: Tensor<3>,
    like_parameter: bool,
}

impl Memory {
    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Takes out the tensor that was kept under a name, if there is one; it must have this shape.
    ///
    /// # Panics
    /// If it has another shape: a record was loaded into an optimizer with other blocks or another axis, and broadcasting
    /// would continue with wrong numbers.
    pub fn take(&mut self, name: &str, shape: [usize; 3]) -> Option<Tensor<3>> {
        let tensor = self.slots.remove(name)?.tensor;
        let was = tensor.dims();
        assert!(
            was == shape,
            "the record was written with other blocks or another axis: {name} {was:?}, now {shape:?}"
        );
        Some(tensor)
    }

    /// The tensor kept under a name.
    pub fn get(&self, name: &str) -> Option<&Tensor<3>> {
        self.slots.get(name).map(|slot| &slot.tensor)
    }

    /// The names of all kept tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.keys().map(AsRef::as_ref)
    }

    /// Keeps a tensor `[matrices, ., .]` until the next step.
    pub fn keep(&mut self, name: &'static str, tensor: Tensor<3>) {
        let like_parameter = self.like == Some(tensor.dims());
        self.slots.insert(Cow::Borrowed(name), Slot { tensor, like_parameter });
    }

    /// Drops the tensor kept under a name.
    pub(super) fn forget(&mut self, name: &str) {
        self.slots.remove(name);
    }

    /// Names, shapes and element types of all kept tensors.
    pub(crate) fn forms(&self, shape: &[usize]) -> BTreeMap<String, (Vec<usize>, burn::tensor::DType)> {
        let form = |slot: &Slot| (slot.recorded_shape(shape), slot.tensor.dtype());
        self.slots.iter().map(|(name, slot)| (name.to_string(), form(slot))).collect()
    }

    /// Reshapes buffers with a number for every entry to the shape in which the parameter is read now.
    ///
    /// # Panics
    /// If a buffer has another number of entries.
    pub(super) fn fit(&mut self, stored: [usize; 3]) {
        for (name, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.like_parameter) {
            let was = slot.tensor.dims();
            if was != stored {
                let [entries, now] = [was, stored].map(|shape| shape.iter().product::<usize>());
                assert!(
                    entries == now,
                    "the {name} was written for a parameter of {entries} entries, this one has {now}"
                );
                slot.tensor = slot.tensor.clone().reshape(stored);
            }
        }
    }

    /// Takes out the buffer of a record of the first version, if this is one.
    pub(super) fn take_first_version(&mut self) -> Option<Tensor<3>> {
        self.slots.remove(FIRST_VERSION).map(|slot| slot.tensor)
    }

    /// The same memory on another device.
    pub(crate) fn on_device(mut self, device: &Device) -> Self {
        for slot in self.slots.values_mut().filter(|slot| slot.tensor.device() != *device) {
            slot.tensor = slot.tensor.clone().to_device(device);
        }
        self
    }

    /// Joins the memories of parameters to that of their stack along an axis; returns them unchanged if their steps or the
    /// names of their tensors differ.
    pub(crate) fn stack(parts: Vec<Self>, axis: usize) -> Result<Self, Vec<Self>> {
        let alike = |a: &Self, b: &Self| (a.step, a.form) == (b.step, b.form) && a.slots.keys().eq(b.slots.keys());
        let Some(first) = parts.first().filter(|first| parts.iter().all(|part| alike(first, part))) else {
            return Err(parts);
        };
        let stacked = |(name, slot): (&Cow<'static, str>, &Slot)| {
            let tensors =
                parts.iter().filter_map(|part| part.slots.get(name)).map(|slot| slot.tensor.clone()).collect();
            (name.clone(), Slot { tensor: Tensor::cat(tensors, axis), ..slot.clone() })
        };
        Ok(Self { slots: first.slots.iter().map(stacked).collect(), ..first.clone() })
    }

    /// The memory of one parameter of a stack: it has `length` of `total` along an axis, from `start`.
    pub(crate) fn part(&self, axis: usize, [start, length, total]: [usize; 3]) -> Self {
        let part = |(name, slot): (&Cow<'static, str>, &Slot)| {
            // A rule may have cut a parameter into several matrices.
            let [start, length] = [start, length].map(|place| place * slot.tensor.dims()[axis] / total);
            (name.clone(), Slot { tensor: slot.tensor.clone().narrow(axis, start, length), ..slot.clone() })
        };
        Self { slots: self.slots.iter().map(part).collect(), ..self.clone() }
    }

    /// Takes out the memories of the sections of the parameter, each as that of a parameter of its own.
    pub(super) fn sections(&mut self, count: usize) -> Vec<Self> {
        let mut sections = vec![Self { step: self.step, form: self.form, ..Self::default() }; count];
        for (number, section) in sections.iter_mut().enumerate() {
            let prefix = section_prefix(number);
            let own = |name: &Cow<'static, str>, _: &mut Slot| name.starts_with(&prefix);
            let taken: Vec<_> = self.slots.extract_if(.., own).collect();
            section.slots.extend(taken.into_iter().map(|(name, slot)| (name[prefix.len()..].to_string().into(), slot)));
        }
        sections
    }

    /// The inverse of [`Memory::sections`], after a step.
    pub(super) fn join_sections(&mut self, sections: Vec<Self>) {
        for (number, section) in sections.into_iter().enumerate() {
            (self.step, self.form) = (section.step, section.form);
            let named = |(name, slot): (Cow<'static, str>, Slot)| {
                let name = Cow::Owned(format!("{}{name}", section_prefix(number)));
                (name, Slot { like_parameter: false, ..slot })
            };
            self.slots.extend(section.slots.into_iter().map(named));
        }
    }

    /// Writes everything under a prefix; buffers with a number for every entry get the shape of the parameter.
    pub(crate) fn flatten(&self, shape: &[usize], prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, STEP, self.step.into());
        out.push_scalar(&format!("{prefix}.{FORM}"), self.form.name(), true.into());
        let mut names = Vec::new();
        for (name, slot) in &self.slots {
            let data = slot.tensor.to_data();
            let dtype = data.dtype();
            let data = TensorData::from_bytes(data.into_bytes(), slot.recorded_shape(shape), dtype);
            out.push_tensor(prefix, name, data);
            names.push(if slot.like_parameter { format!("={name}") } else { name.to_string() });
        }
        if !names.is_empty() {
            let text = names.join("\n").into_bytes();
            let length = text.len();
            out.push_tensor(prefix, NAMES, TensorData::new(text, [length]));
        }
    }

    /// Reads everything under a prefix, for a parameter of this rank; returns also the shape of the parameter, if a buffer
    /// has it.
    pub(crate) fn unflatten(
        rank: usize,
        prefix: &str,
        src: &mut StateSource,
        device: &Device,
    ) -> Option<(Self, Option<Vec<usize>>)> {
        // A state is not part of an autodiff graph, as in a run without interruption, where it comes from gradients.
        let device = &device.clone().without_autodiff();
        let step = u64::try_from(src.take_scalar(prefix, STEP)?).ok()?;
        let form = read_form(prefix, src)?;
        let mut memory = Self { step, form, ..Self::default() };
        let mut parameter = None;
        for (name, like_parameter) in read_names(prefix, src)? {
            let Some(data) = src.take_tensor(prefix, &name) else { continue };
            let shape = data.shape().to_vec();
            let stack = match (like_parameter, shape.as_slice()) {
                (true, _) if shape.len() == rank => [1, 1, shape.iter().product()],
                (false, &[a, b, c]) => [a, b, c],
                _ => return None,
            };
            if like_parameter && parameter.get_or_insert(shape.clone()) != &shape {
                return None;
            }
            let dtype = data.dtype();
            let data = TensorData::from_bytes(data.into_bytes(), stack, dtype);
            let slot = Slot { tensor: Tensor::from_data(data, (device, dtype)), like_parameter };
            memory.slots.insert(Cow::Owned(name), slot);
        }
        Some((memory, parameter))
    }
}

#[cfg(test)]
impl Memory {
    /// An empty memory in a step of this number.
    pub(crate) fn at_step(step: u64) -> Self {
        Self { step, ..Self::default() }
    }

    /// The same memory in a step of this number.
    pub(crate) fn with_step(self, step: u64) -> Self {
        Self { step, ..self }
    }
}

impl Slot {
    fn recorded_shape(&self, parameter: &[usize]) -> Vec<usize> {
        if self.like_parameter { parameter.to_vec() } else { self.tensor.dims().to_vec() }
    }
}

fn read_form(prefix: &str, src: &mut StateSource) -> Option<MomentumForm> {
    let forms = [MomentumForm::Ema, MomentumForm::HeavyBall, MomentumForm::EmaDebiased];
    if let Some(number) = src.take_scalar(prefix, FORM) {
        return forms.get(usize::try_from(u64::try_from(number).ok()?).ok()?).copied();
    }
    let prefix = format!("{prefix}.{FORM}");
    forms.into_iter().find(|form| src.take_scalar(&prefix, form.name()).is_some())
}

/// The buffers of a record, and whether each has a number for every entry of the parameter.
fn read_names(prefix: &str, src: &mut StateSource) -> Option<Vec<(String, bool)>> {
    let Some(names) = src.take_tensor(prefix, NAMES) else {
        let first_version = [(MOMENTUM, true), ("second_moment", true), (FIRST_VERSION, false)];
        return Some(first_version.map(|(name, like_parameter)| (name.to_string(), like_parameter)).to_vec());
    };
    let text = String::from_utf8(names.try_to_vec::<u8>().ok()?).ok()?;
    let name = |line: &str| match line.strip_prefix('=') {
        Some(name) => (name.to_string(), true),
        None => (line.to_string(), false),
    };
    Some(text.lines().map(name).collect())
}

/// The state of one parameter of rank `D`, as Burn stores it.
#[derive(Clone, Debug, Default)]
pub struct State<const D: usize> {
    /// The shape of the parameter; unknown after reading a record in which no buffer has it.
    shape: Option<[usize; D]>,
    memory: Memory,
}

impl<const D: usize> State<D> {
    pub(super) fn new(shape: [usize; D], memory: Memory) -> Self {
        Self { shape: Some(shape), memory }
    }

    /// The memory of a state, for a step of a parameter of this shape.
    ///
    /// # Panics
    /// If it is the state of a parameter of another shape: broadcasting would continue with wrong numbers.
    pub(super) fn into_memory(self, is: [usize; D]) -> Memory {
        if let Some(was) = self.shape {
            assert!(was == is, "the state was written for a parameter of shape {was:?}, this one has {is:?}");
        }
        self.memory
    }

    /// The memory; buffers with a number for every entry are flat, in the order of the parameter.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A buffer with a number for every entry, in the shape of the parameter.
    pub fn buffer(&self, name: &str) -> Option<Tensor<D>> {
        let slot = self.memory.slots.get(name).filter(|slot| slot.like_parameter)?;
        Some(slot.tensor.clone().reshape(self.shape?))
    }

    /// The same state on another device.
    #[must_use]
    pub fn to_device(self, device: &Device) -> Self {
        Self { memory: self.memory.on_device(device), ..self }
    }
}

impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let shape = self.shape.map_or(Vec::new(), |shape| shape.to_vec());
        self.memory.flatten(&shape, prefix, out);
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let (memory, shape) = Memory::unflatten(D, prefix, src, device)?;
        let shape = match shape {
            Some(shape) => Some(shape.try_into().ok()?),
            None => None,
        };
        Some(Self { shape, memory })
    }
}
