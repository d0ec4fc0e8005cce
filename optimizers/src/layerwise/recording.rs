//! The states of the optimizer as a record, and back.

use burn::optim::{StateSink, StateSource};
use burn::tensor::{Device, TensorData};

use super::groups::{Memories, Place, States};
use super::states::{read_memory, read_state};
use super::{LayerwiseError, LayerwiseOptimizer, LayerwiseRecord, RecordError};
use crate::rule::NAMES;
use crate::wrappers::{Wrap, Wrapper, WrapperError};

impl LayerwiseOptimizer {
    /// All states, with the names of their parameters.
    pub fn to_record(&self) -> LayerwiseRecord {
        let mut sink = StateSink::default();
        let mut record = LayerwiseRecord::default();
        let shapes = self.planned.names.iter().zip(&self.planned.forms);
        record.shapes.extend(shapes.map(|(path, form)| (path.clone(), form.shape.clone())));
        record.optimizers.extend(self.plan.entries().iter().map(|entry| (entry.path.clone(), entry.recorded_name())));
        for group in &self.groups {
            let memories = group.memories();
            for (place, number) in group.members.iter().enumerate() {
                let (path, form) = (&self.planned.names[*number], &self.planned.forms[*number]);
                let written = match &group.states {
                    States::Rule { .. } => {
                        memories[place].as_ref().map(|memory| memory.flatten(&form.shape, path, &mut sink))
                    }
                    States::Other { optimizer, state, .. } => {
                        state.as_ref().map(|state| optimizer.optimizer.state_flatten(path, state, &mut sink))
                    }
                };
                if written.is_some() {
                    record.with_state.insert(path.clone());
                }
            }
        }
        for (name, data) in sink.tensors {
            match name.strip_suffix(NAMES).and_then(|path| path.strip_suffix('.')) {
                Some(path) => {
                    let names = String::from_utf8_lossy(data.as_bytes()).into_owned();
                    record.memories.insert(path.to_string(), names);
                }
                None => drop(record.tensors.insert(name, data)),
            }
        }
        record.scalars.extend(sink.scalars);
        if let Some(wrapper) = &self.wrapper {
            record.add_wrapper(wrapper.to_record());
        }
        record
    }

    /// Loads the states of a record onto `device`.
    ///
    /// # Errors
    /// If the record was written for other parameters, shapes, element types, optimizers or with another wrapper, or a state in it
    /// is incomplete. Nothing is changed then.
    pub fn load_record(&mut self, mut record: LayerwiseRecord, device: &Device) -> Result<(), LayerwiseError> {
        self.check_coverage(&record)?;
        let wrapper = self.read_wrapper(&mut record, device)?;
        let names: Vec<String> = record.tensors.keys().cloned().collect();
        let mut source = StateSource::new(record.scalars.into_iter().collect());
        for (name, data) in record.tensors {
            source.insert_tensor(name, data);
        }
        for (path, names) in record.memories {
            let (length, bytes) = (names.len(), names.into_bytes());
            source.insert_tensor(format!("{path}.{NAMES}"), TensorData::new(bytes, [length]));
        }
        let mut groups = self.groups.clone();
        for group in &mut groups {
            let with_state = |number: &usize| record.with_state.contains(&self.planned.names[*number]);
            let members: Vec<(usize, bool)> =
                group.members.iter().map(|number| (*number, with_state(number))).collect();
            match &mut group.states {
                States::Rule { pipeline, places, memories, .. } => {
                    let read = |((number, with_state), place): ((usize, bool), &Place)| {
                        let (path, form) = (&self.planned.names[number], &self.planned.forms[number]);
                        with_state
                            .then(|| read_memory(pipeline, &place.reading, path, form, &mut source, device))
                            .transpose()
                    };
                    *memories =
                        Memories::Apart(members.into_iter().zip(&places.0).map(read).collect::<Result<_, _>>()?);
                }
                States::Other { optimizer, state, .. } => {
                    let (number, with_state) = members[0];
                    let (path, form) = (&self.planned.names[number], &self.planned.forms[number]);
                    let read = || read_state(optimizer, path, form, &mut source, device);
                    *state = with_state.then(read).transpose()?;
                }
            }
        }
        if let Some(name) = names.into_iter().find(|name| source.take_tensor("", name).is_some()) {
            return Err(RecordError::Unknown { name }.into());
        }
        (self.groups, self.wrapper) = (groups, wrapper);
        Ok(())
    }

    /// The wrapper with its state in a record.
    fn read_wrapper(&self, record: &mut LayerwiseRecord, device: &Device) -> Result<Option<Wrapper>, WrapperError> {
        let stored = std::mem::take(&mut record.wrappers).into_values().next();
        let Some(mut wrapper) = self.wrapper.clone() else {
            return match stored {
                Some(stored) => Err(WrapperError::Kind { was: stored.kind, is: String::new() }),
                None => Ok(None),
            };
        };
        wrapper.load_record(stored.unwrap_or_default(), device)?;
        Ok(Some(wrapper))
    }

    fn check_coverage(&self, record: &LayerwiseRecord) -> Result<(), RecordError> {
        for entry in self.plan.entries() {
            let (path, is) = (entry.path.clone(), entry.recorded_name());
            match record.optimizers.get(&path) {
                None => return Err(RecordError::NoParameter { path }),
                Some(was) if *was != is => return Err(RecordError::Optimizer { path, was: was.clone(), is }),
                Some(_) => {}
            }
            if let Some(was) = record.shapes.get(&path)
                && *was != entry.shape
            {
                return Err(RecordError::Shape { path, was: was.clone(), is: entry.shape.clone() });
            }
        }
        let known = |path: &&String| self.plan.entries().iter().any(|entry| entry.path == **path);
        if let Some(path) = record.optimizers.keys().find(|path| !known(path)) {
            return Err(RecordError::NotInModel { what: "the parameter", path: path.clone() });
        }
        match record.with_state.iter().find(|path| !known(path)) {
            Some(path) => Err(RecordError::NotInModel { what: "a state of", path: path.clone() }),
            None => Ok(()),
        }
    }
}
