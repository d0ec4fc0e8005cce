//! Where the elements of a parameter are in the tensors of other programs.

/// A tensor, and which of its elements belong to a link. Its last two axes are inputs and outputs, in either order; before them may be
/// one of experts. A vector has outputs only.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Its name, here the path of a parameter.
    pub name: String,
    pub shape: Vec<usize>,
    /// Whether the axis of the outputs is before that of the inputs.
    pub swapped: bool,
    /// The first expert.
    pub expert: usize,
    /// The first output, and the distance to the next.
    pub outputs: (usize, usize),
}

impl Place {
    /// A whole tensor, inputs before outputs.
    pub fn whole(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), swapped: false, expert: 0, outputs: (0, 1) }
    }

    /// The same with outputs before inputs.
    pub fn swapped(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { swapped: true, ..Self::whole(name, shape) }
    }

    /// From the output `first` on.
    pub fn at_output(self, first: usize) -> Self {
        Self { outputs: (first, 1), ..self }
    }

    /// Every second output, from `first` on.
    pub fn every_second(self, first: usize) -> Self {
        Self { outputs: (first, 2), ..self }
    }

    /// From this expert on.
    pub fn at_expert(self, expert: usize) -> Self {
        Self { expert, ..self }
    }

    /// Number of elements of the whole tensor.
    pub fn count(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }

    /// Inputs and outputs of the whole tensor.
    fn axes(&self) -> (usize, usize) {
        match *self.shape.as_slice() {
            [.., outputs, inputs] if self.swapped => (inputs, outputs),
            [.., inputs, outputs] => (inputs, outputs),
            [outputs] => (1, outputs),
            [] => (1, 1),
        }
    }

    fn offset(&self, [expert, input, output]: [usize; 3]) -> usize {
        let (inputs, outputs) = self.axes();
        let (first, step) = self.outputs;
        let output = first + output * step;
        let within = if self.swapped { output * inputs + input } else { input * outputs + output };
        (self.expert + expert) * inputs * outputs + within
    }
}

/// Elements that a tensor of another program and a parameter share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    pub theirs: Place,
    /// None for what the decoder does not have and zeros stand for.
    pub ours: Option<Place>,
    /// Experts, inputs and outputs.
    pub size: [usize; 3],
}

impl Link {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.size.iter().copied().fold(1, usize::saturating_mul)
    }

    /// Copies the elements of `theirs` to `ours`.
    pub fn read(&self, theirs: &[f32], ours: &mut [f32]) {
        if let Some(place) = &self.ours {
            self.copy(&self.theirs, theirs, place, ours);
        }
    }

    /// Copies the elements of `ours` to `theirs`.
    pub fn write(&self, ours: &[f32], theirs: &mut [f32]) {
        if let Some(place) = &self.ours {
            self.copy(place, ours, &self.theirs, theirs);
        }
    }

    /// Both slices must have the lengths of their places.
    fn copy(&self, from: &Place, source: &[f32], to: &Place, target: &mut [f32]) {
        let [experts, inputs, outputs] = self.size;
        for expert in 0..experts {
            for input in 0..inputs {
                for output in 0..outputs {
                    let index = [expert, input, output];
                    let value = source.get(from.offset(index));
                    if let (Some(value), Some(slot)) = (value, target.get_mut(to.offset(index))) {
                        *slot = *value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_outputs_of_swapped_experts_are_found_and_put_back() {
        // Theirs: 2 experts, 4 outputs (gate and up in turn), 3 inputs; ours: the gates as [2, 3, 2].
        let link = Link {
            theirs: Place::swapped("gate_up", &[2, 4, 3]).every_second(0),
            ours: Some(Place::whole("gate", &[2, 3, 2])),
            size: [2, 3, 2],
        };
        let theirs: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let mut ours = vec![-1.0; 12];
        link.read(&theirs, &mut ours);
        assert_eq!(ours, [0., 6., 1., 7., 2., 8., 12., 18., 13., 19., 14., 20.]);
        let mut back = vec![0.0; 24];
        link.write(&ours, &mut back);
        let expected: Vec<f32> = (0..24).map(|i| if i / 3 % 2 == 0 { i as f32 } else { 0.0 }).collect();
        assert_eq!(back, expected);
    }

    #[test]
    fn a_part_of_a_fused_projection_is_a_projection() {
        let link = Link {
            theirs: Place::swapped("k_proj", &[1, 2]),
            ours: Some(Place::whole("qkv", &[2, 4]).at_output(2)),
            size: [1, 2, 1],
        };
        let mut ours = vec![0.0; 8];
        link.read(&[5.0, 7.0], &mut ours);
        assert_eq!(ours, [0., 0., 5., 0., 0., 0., 7., 0.]);
    }
}
