//! The tensors of a class, one after another, as the parameters of a decoder.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, TensorData};
use polaron_common::did_you_mean;

use super::class::Class;
use super::classes::class_for;
use super::link::Link;
use crate::error::ModelError;
use crate::settings::model::ModelConfig;
use crate::weights::NamedTensor;

/// Whether a tensor of a file becomes part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It does: give it to [`Import::add`].
    Yes,
    /// It is computed from others, or the head of a model whose head is its embedding: it need not be read.
    No,
}

/// Collects the parameters of a decoder from the tensors of its class, which come in any order and from any number of files.
///
/// First [`check`](Self::check) the names and shapes of all files, then [`add`](Self::add) one tensor after another, then
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Import {
    class: &'static Class,
    tied_head: bool,
    /// By the name of their tensor.
    links: BTreeMap<String, Vec<Link>>,
    /// The names that are published, which messages use.
    published: BTreeSet<String>,
    /// Shapes and values; no values until the first tensor that has some.
    parameters: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    seen: Seen,
}

/// The tensors that were given, and how many values of each parameter they hold.
#[derive(Debug, Default)]
struct Seen {
    tensors: BTreeSet<String>,
    values: BTreeMap<String, usize>,
}

impl Import {
    /// For a decoder that [`read_config`](super::read_config) returned.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoForeignClass`] for a configuration of no class.
    pub fn new(config: &ModelConfig, vocab_size: usize) -> Result<Self, ModelError> {
        let class = class_for(config)?;
        let links = (class.links)(config, vocab_size);
        let published = links.iter().map(|link| link.theirs.name.clone()).collect();
        let (mut by_name, mut parameters) = (BTreeMap::<String, Vec<Link>>::new(), BTreeMap::new());
        for link in links.into_iter().chain((class.other_links)(config)) {
            if let Some(ours) = &link.ours {
                parameters.entry(ours.name.clone()).or_insert_with(|| (ours.shape.clone(), Vec::new()));
            }
            by_name.entry(link.theirs.name.clone()).or_default().push(link);
        }
        let tied_head = config.tied_head;
        Ok(Self { class, tied_head, links: by_name, published, parameters, seen: Seen::default() })
    }

    /// Checks all tensors of all files, before any is read: names and shapes.
    ///
    /// # Errors
    ///
    /// [`ModelError::ForeignTensor`] names the first that is unknown, has another shape, is there twice or is missing.
    pub fn check<'a>(&self, tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Result<(), ModelError> {
        let mut seen = Seen::default();
        for (name, shape) in tensors {
            self.see(&mut seen, name, shape)?;
        }
        self.check_complete(&seen)
    }

    /// Whether a tensor becomes part of the model.
    ///
    /// # Errors
    ///
    /// [`ModelError::ForeignTensor`] if it is unknown or has another shape.
    pub fn wants(&self, name: &str, shape: &[usize]) -> Result<Wanted, ModelError> {
        Ok(if self.links_of(name, shape)?.is_some() { Wanted::Yes } else { Wanted::No })
    }

    /// Takes a tensor: float32, bfloat16 or float16. One that is not [wanted](Self::wants) is left alone.
    ///
    /// # Errors
    ///
    /// [`ModelError::ForeignTensor`] if it is unknown, has another shape or element type, or was taken before.
    pub fn add(&mut self, name: &str, data: &TensorData) -> Result<(), ModelError> {
        let mut seen = std::mem::take(&mut self.seen);
        let links = self.see(&mut seen, name, &data.shape().to_vec());
        let links = links.map(|links| links.map(<[Link]>::to_vec));
        self.seen = seen;
        let Some(links) = links? else { return Ok(()) };
        let dtype = data.dtype();
        if ![DType::F32, DType::BF16, DType::F16].contains(&dtype) {
            let problem = format!("has elements of type {dtype:?}: give float32, bfloat16 or float16");
            return Err(foreign(name, problem));
        }
        let values: Vec<f32> = data.iter::<f32>().collect();
        for link in links {
            let parameter =
                link.ours.as_ref().and_then(|ours| Some((self.parameters.get_mut(&ours.name)?, ours.count())));
            match parameter {
                Some(((_, parameter), count)) => {
                    parameter.resize(count, 0.0);
                    link.read(&values, parameter);
                }
                None if values.iter().all(|value| *value == 0.0) => {}
                None => return Err(foreign(name, "has values, but the model was told to be without it".into())),
            }
        }
        Ok(())
    }

    /// The parameters, for [`load_named`](crate::load_named).
    ///
    /// # Errors
    ///
    /// [`ModelError::ForeignTensor`] names the first tensor that is missing.
    pub fn finish(self) -> Result<Vec<NamedTensor>, ModelError> {
        self.check_complete(&self.seen)?;
        let parameters = self.parameters.into_iter();
        Ok(parameters
            .map(|(name, (shape, values))| NamedTensor { name, data: TensorData::new(values, shape) })
            .collect())
    }

    /// The published name of a tensor: files of the model without its head leave out the prefix.
    fn full_name(&self, name: &str) -> String {
        let longer = format!("{}{name}", self.class.prefix);
        if self.links.contains_key(&longer) { longer } else { name.into() }
    }

    /// What becomes of a tensor; None if nothing does.
    fn links_of(&self, name: &str, shape: &[usize]) -> Result<Option<&[Link]>, ModelError> {
        let Some(links) = self.links.get(&self.full_name(name)) else {
            let computed = self.class.buffers.iter().any(|end| name.ends_with(end));
            if computed || (self.tied_head && name == "lm_head.weight") {
                return Ok(None);
            }
            let hint = did_you_mean(name, self.published.iter().map(String::as_str));
            let class = self.class.name;
            let problem = format!("(shape {shape:?}) is not one that {class} has by its config.json{hint}");
            return Err(foreign(name, problem));
        };
        let expected = links.first().map(|link| link.theirs.shape.as_slice()).unwrap_or_default();
        if expected != shape {
            let problem = format!("has shape {shape:?}, but by config.json it must have {expected:?}");
            return Err(foreign(name, problem));
        }
        Ok(Some(links))
    }

    /// The same, counting what the tensor holds.
    fn see(&self, seen: &mut Seen, name: &str, shape: &[usize]) -> Result<Option<&[Link]>, ModelError> {
        let Some(links) = self.links_of(name, shape)? else { return Ok(None) };
        let mut twice = !seen.tensors.insert(self.full_name(name));
        for link in links {
            let Some(ours) = &link.ours else { continue };
            let count = seen.values.entry(ours.name.clone()).or_default();
            *count = count.saturating_add(link.count());
            twice |= *count > ours.count();
        }
        if twice {
            return Err(foreign(name, "is there twice, also under another name: keep one of them".into()));
        }
        Ok(Some(links))
    }

    /// Checks that every value of every parameter was given.
    fn check_complete(&self, seen: &Seen) -> Result<(), ModelError> {
        for (path, (shape, _)) in &self.parameters {
            if seen.values.get(path).copied().unwrap_or(0) == shape.iter().copied().fold(1, usize::saturating_mul) {
                continue;
            }
            let belongs = |link: &Link| link.ours.as_ref().is_some_and(|ours| ours.name == *path);
            let links = |name: &str| self.links.get(name).map(Vec::as_slice).unwrap_or_default();
            let missing = |name: &&String| !seen.tensors.contains(*name) && links(name).iter().any(belongs);
            let name = self.published.iter().find(missing).unwrap_or(path);
            return Err(foreign(name, "is missing from the files: give all files of the model".into()));
        }
        Ok(())
    }
}

fn foreign(name: &str, problem: String) -> ModelError {
    ModelError::ForeignTensor { name: name.into(), problem }
}
