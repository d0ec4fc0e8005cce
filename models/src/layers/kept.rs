//! Tables of constants that are made once per device and kept.

use std::fmt::{Debug, Formatter};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Tables of constants by key: each is written to a device when a layer first needs it there, and is used by all layers and all
/// passes from then on.
pub(crate) struct Kept<K>(Mutex<Vec<Table<K>>>);

struct Table<K> {
    key: K,
    values: Tensor<2>,
}

impl<K: PartialEq> Kept<K> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The table of `key` on `device`: `lines` lines with the values that `make` returns. A key has one table per device and
    /// type: one with another number of lines replaces it, so that varying lengths do not fill the memory.
    pub(crate) fn get(
        &self,
        key: K,
        lines: usize,
        (device, dtype): (&Device, DType),
        make: impl FnOnce() -> Vec<f32>,
    ) -> Tensor<2> {
        // A constant needs no gradient, and is valid in passes with and without a graph.
        let device = device.clone().without_autodiff();
        // Every change to the list is one call: a panic elsewhere leaves nothing half done.
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = tables.iter().position(|Table { key: other, values }| {
            *other == key && values.dtype() == dtype && values.device() == device
        });
        if let Some(place) = place {
            if tables[place].values.dims()[0] == lines {
                return tables[place].values.clone();
            }
            tables.remove(place);
        }
        #[cfg(test)]
        MADE.set(MADE.get() + 1);
        let values = make();
        let shape = [lines, values.len() / lines];
        let values = Tensor::from_data(TensorData::new(values, shape), (&device, dtype));
        tables.push(Table { key, values: values.clone() });
        values
    }
}

impl<K> Debug for Kept<K> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Kept")
    }
}

#[cfg(test)]
thread_local! {
    /// Tables that this thread has written to a device.
    pub(crate) static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_once_per_key_type_and_length() {
        let (kept, device) = (Kept::new(), Device::flex());
        let before = MADE.get();
        let made = |key: &'static str, lines: usize, device: &Device, dtype| {
            let table = kept.get(key, lines, (device, dtype), || vec![1.0; 2 * lines]);
            assert_eq!((table.dims(), table.dtype()), ([lines, 2], dtype));
            assert!(!table.device().is_autodiff());
            MADE.get() - before
        };
        assert_eq!(made("a", 3, &device, DType::F32), 1);
        // Passes with a graph, and with one that recomputes activations, use the same table.
        assert_eq!(made("a", 3, &device.clone().autodiff(), DType::F32), 1);
        assert_eq!(made("a", 3, &device.clone().autodiff().gradient_checkpointing(), DType::F32), 1);
        assert_eq!(made("b", 3, &device, DType::F32), 2);
        assert_eq!(made("a", 3, &device, DType::F64), 3);
        assert_eq!(made("a", 4, &device, DType::F32), 4);
        assert_eq!(made("a", 4, &device, DType::F32), 4);
        assert_eq!(kept.0.lock().unwrap().len(), 3, "the longer table replaced the shorter one");
    }
}
