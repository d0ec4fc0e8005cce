//! The program as its users meet it: the real executable, in folders of its own, on texts and models of thumbnail size.

mod attention;
mod bad_input;
mod comparing;
mod comparing_data;
mod comparing_later;
#[cfg(unix)]
mod comparing_machines;
mod comparing_search;
mod data;
mod devices;
mod evaluating;
mod exporting;
mod exporting_hf;
mod freezing;
mod generating;
mod grains;
mod huggingface;
mod identity;
mod inspecting_weights;
mod limits;
mod logging;
mod outputs;
mod perceptron;
mod probing;
mod projecting;
#[cfg(feature = "mpi")]
mod racing;
mod ranks;
mod reporting;
mod resuming;
mod starting;
mod suggested;
mod support;
mod training;
mod wrappers;
