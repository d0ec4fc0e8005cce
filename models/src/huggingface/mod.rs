//! Models of Hugging Face's `transformers`: their `config.json` and their tensors as those of this crate, and back.
//!
//! Six classes are known: `GPT2LMHeadModel`, `LlamaForCausalLM`, `Qwen3ForCausalLM`, `Gemma3ForCausalLM`, `OlmoeForCausalLM` and
//! `GptOssForCausalLM`. Nothing here opens a file.
//!
//! * Out: [`write_config`] and [`to_foreign`].
//! * In: [`read_config`], then an [`Import`], which says which tensors it wants and takes them one after another, in any order.
//!
//! What a class can say and the decoder cannot, or the other way round, is an error that names the key and its value.
//!
//! ```
//! use burn::tensor::Device;
//! use polaron_models::{ModelConfig, huggingface, load_named, to_named};
//!
//! let (device, vocab_size) = (Device::flex(), 65);
//! let model = ModelConfig::preset("qwen3-tiny")?.init(vocab_size, 1, &device)?;
//! let json = huggingface::write_config(model.config(), vocab_size, None)?;
//! let foreign = huggingface::to_foreign(model.config(), vocab_size, &to_named(&model))?;
//!
//! let read = huggingface::read_config(&json)?;
//! let mut import = huggingface::Import::new(&read.model, read.vocab_size)?;
//! for tensor in foreign {
//!     import.add(&tensor.name, &tensor.data)?;
//! }
//! let fresh = read.model.init(read.vocab_size, 0, &device)?;
//! let copy = load_named(fresh, import.finish()?, &device)?;
//! assert_eq!(to_named(&copy), to_named(&model));
//! # Ok::<(), polaron_models::ModelError>(())
//! ```

mod class;
mod classes;
mod decoder;
mod export;
mod import;
mod keys;
mod link;
mod patterns;
mod read;
mod rope;
mod write;

pub use export::to_foreign;
pub use import::{Import, Wanted};
pub use read::{ForeignConfig, read_config};
pub use write::write_config;
