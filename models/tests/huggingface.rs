//! Models of `transformers`, against what `transformers` itself saved and computed (`benches/peers/huggingface_golden.py`).

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use polaron_models::huggingface::{Import, Wanted, read_config, to_foreign, write_config};
use polaron_models::{LanguageModel, ModelConfig, ModelError, NamedTensor, load_named, to_named};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
    tokens: Vec<i32>,
    logits: Vec<Vec<f64>>,
}

const VOCAB: usize = 11;

/// Every class, with the preset that is most like it.
fn goldens() -> [(&'static str, Golden); 6] {
    let parse = |text| serde_json::from_str(text).unwrap();
    [
        ("nanogpt-char", parse(include_str!("huggingface/gpt2.json"))),
        ("llama-d64", parse(include_str!("huggingface/llama.json"))),
        ("qwen3-tiny", parse(include_str!("huggingface/qwen3.json"))),
        ("gemma3-tiny", parse(include_str!("huggingface/gemma3.json"))),
        ("olmoe-tiny", parse(include_str!("huggingface/olmoe.json"))),
        ("gpt-oss-tiny", parse(include_str!("huggingface/gpt_oss.json"))),
    ]
}

fn golden(preset: &str) -> Golden {
    goldens().into_iter().find(|(name, _)| *name == preset).unwrap().1
}

/// The tensor that the script gives this name.
fn tensor(name: &str, shape: &[usize]) -> TensorData {
    let salt: u64 = name.bytes().map(u64::from).sum();
    let value = |i: u64| (((salt + i).pow(3) + 11 * i) % 127) as f32;
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count as u64).map(|i| (value(i) - 63.0) / 128.0).collect();
    TensorData::new(values, shape.to_vec())
}

impl Golden {
    fn tensors(&self) -> impl Iterator<Item = NamedTensor> {
        self.tensors.iter().map(|(name, shape)| NamedTensor { name: name.clone(), data: tensor(name, shape) })
    }

    fn model(&self, tensors: impl Iterator<Item = NamedTensor>) -> Result<LanguageModel, ModelError> {
        let read = read_config(&self.config)?;
        assert_eq!((read.vocab_size, read.ignored.as_slice()), (VOCAB, &[] as &[String]));
        let mut import = Import::new(&read.model, read.vocab_size)?;
        for tensor in tensors {
            import.add(&tensor.name, &tensor.data)?;
        }
        let device = Device::flex();
        load_named(read.model.init(read.vocab_size, 1, &device)?, import.finish()?, &device)
    }

    fn refusal(&self, change: impl FnOnce(&mut Vec<NamedTensor>)) -> String {
        let mut tensors: Vec<NamedTensor> = self.tensors().collect();
        change(&mut tensors);
        self.model(tensors.into_iter()).unwrap_err().to_string()
    }
}

#[test]
fn a_model_of_transformers_computes_the_same_logits() {
    for (preset, golden) in goldens() {
        let model = golden.model(golden.tensors()).unwrap();
        assert_eq!(model.config().preset, preset);
        let tokens = TensorData::new(golden.tokens.clone(), [1, golden.tokens.len()]);
        let logits = model.forward(Tensor::<2, Int>::from_data(tokens, &Device::flex()));
        let found: Vec<f32> = logits.into_data().try_to_vec().unwrap();
        let expected = golden.logits.concat();
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0f64, |largest, x| largest.max(x.abs()));
        let size = largest(&mut expected.iter().copied());
        let error =
            largest(&mut found.iter().zip(&expected).map(|(found, expected)| f64::from(*found) - expected)) / size;
        println!("{preset}: {error:.1e} of the largest logit");
        // Some hundred 32-bit operations on numbers of that size.
        assert!(found.len() == expected.len() && error < 1e-5, "{preset}: {error:.1e}");
    }
}

#[test]
fn a_model_that_came_from_transformers_goes_back_to_the_same_tensors_and_keys() {
    for (preset, golden) in goldens() {
        let model = golden.model(golden.tensors()).unwrap();
        let mut back = to_foreign(model.config(), VOCAB, &to_named(&model)).unwrap();
        back.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(back, golden.tensors().collect::<Vec<_>>(), "{preset}");
        let written = write_config(model.config(), VOCAB, None).unwrap();
        for (key, value) in golden.config.as_object().unwrap() {
            let filled = || json!(4 * model.config().d_model);
            let value = if key == "n_inner" { filled() } else { value.clone() };
            // What is not written is not needed: the reader of transformers has these defaults.
            let found = written.get(key).unwrap_or(&value);
            let same = found == &value || found.as_f64().is_some_and(|number| Some(number) == value.as_f64());
            assert!(same, "{preset}: {key} is {found}, not {value}");
        }
    }
}

#[test]
fn every_preset_comes_back_as_it_was() {
    for preset in ModelConfig::PRESETS {
        let config = ModelConfig::preset(preset).unwrap();
        let json = write_config(&config, 65, Some(0)).unwrap();
        assert_eq!(
            (&json["vocab_size"], &json["eos_token_id"], &json["bos_token_id"]),
            (&json!(65), &json!(0), &Value::Null)
        );
        let read = read_config(&json).unwrap();
        let expected = match config.position {
            // The class has all biases; those that the model lacks are written as zeros.
            polaron_models::PositionKind::Learned => {
                let mut expected = config.clone();
                (expected.norm_bias, expected.attention_bias, expected.feed_forward_bias) = (true, true, true);
                expected
            }
            _ => config.clone(),
        };
        let mut found = read.model;
        found.preset = (*preset).into();
        assert_eq!(found, expected);
    }
}

/// The classes have several forms for the same thing: fused or separate projections, one base or two.
#[test]
fn a_model_with_other_projections_than_its_class_is_the_same_model() {
    let device = Device::flex();
    for (preset, other) in [("nanogpt-char", "separate"), ("qwen3-tiny", "fused")] {
        let text =
            format!("preset = \"{preset}\"\nprojection = \"{other}\"\nlayers = 1\ncontext = 8\nattention_bias = true");
        let config: ModelConfig = toml::from_str(&text).unwrap();
        let model = config.init(VOCAB, 3, &device).unwrap();
        let read = read_config(&write_config(&config, VOCAB, None).unwrap()).unwrap();
        let mut import = Import::new(&read.model, VOCAB).unwrap();
        for tensor in to_foreign(&config, VOCAB, &to_named(&model)).unwrap() {
            import.add(&tensor.name, &tensor.data).unwrap();
        }
        let fresh = read.model.init(VOCAB, 0, &device).unwrap();
        let copy = load_named(fresh, import.finish().unwrap(), &device).unwrap();
        let logits = |model: &LanguageModel| -> Vec<f32> {
            let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3, 4, 5]], &device);
            model.forward(tokens).into_data().try_to_vec().unwrap()
        };
        for (a, b) in logits(&model).iter().zip(logits(&copy)) {
            assert!((a - b).abs() < 1e-6, "{preset}: {a} {b}");
        }
    }
}

#[test]
fn half_precision_files_of_any_order_and_without_the_prefix_are_read() {
    let golden = golden("nanogpt-char");
    let expected = to_named(&golden.model(golden.tensors()).unwrap());
    for dtype in [DType::BF16, DType::F16] {
        // Multiples of 1/128 below one half are exact in both.
        let mut tensors: Vec<NamedTensor> = golden.tensors().collect();
        tensors.reverse();
        for tensor in &mut tensors {
            tensor.name = tensor.name.trim_start_matches("transformer.").into();
            tensor.data = tensor.data.clone().convert_dtype(dtype);
        }
        // Masks of older versions, which are not weights, and the head, which is the embedding.
        let ones = TensorData::new(vec![1.0f32; 144], [1, 1, 12, 12]);
        for name in ["h.0.attn.bias", "h.1.attn.masked_bias"] {
            tensors.push(NamedTensor { name: name.into(), data: ones.clone() });
        }
        let head = NamedTensor { name: "lm_head.weight".into(), data: TensorData::zeros::<f32, _>([VOCAB, 16]) };
        tensors.push(head);
        assert_eq!(to_named(&golden.model(tensors.into_iter()).unwrap()), expected, "{dtype:?}");
    }
}

#[test]
fn experts_in_stacks_are_those_in_single_tensors() {
    let golden = golden("olmoe-tiny");
    let expected = to_named(&golden.model(golden.tensors()).unwrap());
    let of = |layer: usize, names: &[&str]| {
        let parts = (0..4).flat_map(|expert| {
            let name = move |name: &&str| format!("model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight");
            names.iter().map(name).flat_map(|name| {
                let shape = &golden.tensors[&name];
                tensor(&name, shape).try_to_vec::<f32>().unwrap()
            })
        });
        parts.collect::<Vec<f32>>()
    };
    let mut tensors: Vec<NamedTensor> = golden.tensors().filter(|tensor| !tensor.name.contains(".experts.")).collect();
    for layer in 0..2 {
        for (name, parts, shape) in
            [("gate_up_proj", &["gate", "up"][..], [4, 48, 16]), ("down_proj", &["down"], [4, 16, 24])]
        {
            let data = TensorData::new(of(layer, parts), shape);
            tensors.push(NamedTensor { name: format!("model.layers.{layer}.mlp.experts.{name}"), data });
        }
    }
    assert_eq!(to_named(&golden.model(tensors.clone().into_iter()).unwrap()), expected);
    let both = golden.model(tensors.into_iter().chain(golden.tensors())).unwrap_err().to_string();
    assert!(both.contains("is there twice"), "{both}");
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let golden = golden("qwen3-tiny");
    let missing = golden.refusal(|tensors| tensors.retain(|tensor| tensor.name != "model.norm.weight"));
    assert!(missing.contains("`model.norm.weight` is missing"), "{missing}");
    let part = self::golden("olmoe-tiny").refusal(|tensors| {
        tensors.retain(|tensor| tensor.name != "model.layers.1.mlp.experts.2.up_proj.weight");
    });
    assert!(part.contains("`model.layers.1.mlp.experts.2.up_proj.weight` is missing"), "{part}");
    let unknown = golden.refusal(|tensors| tensors[3].name = "model.layers.0.mlp.gate_prj.weight".into());
    assert!(unknown.contains("`model.layers.0.mlp.gate_prj.weight`") && unknown.contains("did you mean"), "{unknown}");
    let shape = golden.refusal(|tensors| tensors[1].data = TensorData::zeros::<f32, _>([12, 16]));
    assert!(shape.contains("[12, 16]") && shape.contains("[11, 16]"), "{shape}");
    let twice = golden.refusal(|tensors| tensors.push(tensors[0].clone()));
    assert!(twice.contains("is there twice"), "{twice}");
    let dtype = golden.refusal(|tensors| tensors[0].data = TensorData::zeros::<f64, _>([VOCAB, 16]));
    assert!(dtype.contains("F64"), "{dtype}");
}

#[test]
fn names_and_shapes_are_checked_before_anything_is_read() {
    let golden = golden("llama-d64");
    let read = read_config(&golden.config).unwrap();
    let import = Import::new(&read.model, VOCAB).unwrap();
    let shapes = || golden.tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    import.check(shapes()).unwrap();
    assert!(import.check(shapes().skip(1)).unwrap_err().to_string().contains("is missing"));
    assert!(import.check(shapes().chain(shapes().take(1))).unwrap_err().to_string().contains("twice"));
    assert_eq!(import.wants("model.norm.weight", &[16]), Ok(Wanted::Yes));
    assert_eq!(import.wants("model.rotary_emb.inv_freq", &[3]), Ok(Wanted::No));
    assert!(import.wants("model.norm.bias", &[16]).is_err());
}

#[test]
fn older_files_say_the_same_with_other_keys() {
    // Keys as version 4 wrote them.
    let old = |text: &str| read_config(&serde_json::from_str(text).unwrap()).unwrap();
    let gpt2 = old(
        r#"{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_ctx": 1024, "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "vocab_size": 50257, "activation_function": "gelu_new", "resid_pdrop": 0.1}"#,
    );
    // 124,439,808 is the published count.
    assert_eq!((gpt2.model.parameters(gpt2.vocab_size), gpt2.model.hidden), (124_439_808, 3072));
    let gemma = old(
        r#"{"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "rope_theta": 1000000, "rope_scaling": null,
        "rope_local_base_freq": 10000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144}"#,
    );
    let bases = [gemma.model.rope_base, gemma.model.rope_base_sliding];
    assert_eq!((bases, gemma.model.full_every, gemma.model.sliding_window), ([1e6, 1e4], 6, 512));
    let qwen = old(r#"{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_window_layers": 28, "rope_theta": 1000000,
        "use_sliding_window": false, "sliding_window": null, "tie_word_embeddings": true, "vocab_size": 151936}"#);
    assert_eq!((qwen.model.parameters(qwen.vocab_size), qwen.model.rope_base), (596_049_920, 1e6));
    let unknown = old(r#"{"model_type": "llama", "attention_logit_scale": 0.5}"#);
    assert_eq!(unknown.ignored, ["attention_logit_scale"]);
}

#[test]
fn keys_that_the_decoder_cannot_follow_are_refused_with_their_value() {
    for (preset, key, value, said) in [
        ("llama-d64", "model_type", json!("mamba"), "gpt2, gpt_oss, olmoe, gemma3_text, qwen3, llama"),
        ("llama-d64", "model_type", Value::Null, "gemma3_text"),
        ("llama-d64", "architectures", json!(["LlamaForSequenceClassification"]), "LlamaForCausalLM"),
        ("llama-d64", "hidden_act", json!("relu"), "silu"),
        ("llama-d64", "hidden_size", json!(-3), "whole number"),
        ("llama-d64", "hidden_size", json!(1_u64 << 60), "from 1 to 2147483648"),
        ("llama-d64", "num_hidden_layers", json!(1_000_000_000), "from 1 to 1000"),
        ("llama-d64", "tie_word_embeddings", json!("yes"), "true or false"),
        ("llama-d64", "rope_parameters", json!({"rope_type": "llama3", "factor": 8.0}), "default"),
        ("llama-d64", "rope_scaling", json!({"type": "linear", "factor": 2.0}), "default"),
        ("llama-d64", "partial_rotary_factor", json!(0.5), "whole heads"),
        ("llama-d64", "quantization_config", json!({"quant_method": "mxfp4"}), "quantised"),
        ("qwen3-tiny", "layer_types", json!(["full_attention", "sliding_attention"]), "every n-th"),
        ("qwen3-tiny", "layer_types", json!(["full_attention"]), "2 layers"),
        ("qwen3-tiny", "layer_types", json!(["sliding_attention", "full_attention"]), "use_sliding_window"),
        ("gemma3-tiny", "query_pre_attn_scalar", json!(144), "head dimension, here 6"),
        ("gemma3-tiny", "final_logit_softcapping", json!(30.0), "caps neither"),
        ("gemma3-tiny", "attn_logit_softcapping", json!(50.0), "caps neither"),
        ("gemma3-tiny", "use_bidirectional_attention", json!(true), "looks back"),
        ("olmoe-tiny", "norm_topk_prob", json!(true), "renormalise"),
        ("olmoe-tiny", "clip_qkv", json!(8.0), "clip"),
        ("olmoe-tiny", "num_hidden_layers", json!(1001), "from 1 to 1000"),
        ("gpt-oss-tiny", "rope_parameters", Value::Null, "yarn"),
        ("gpt-oss-tiny", "swiglu_limit", json!(10.0), "clamps at 7"),
        ("nanogpt-char", "activation_function", json!("relu"), "gelu_new"),
        ("nanogpt-char", "scale_attn_by_inverse_layer_idx", json!(true), "alike"),
        ("nanogpt-char", "add_cross_attention", json!(true), "cross-attention"),
    ] {
        let mut config = golden(preset).config;
        config[key] = value.clone();
        let error = read_config(&config).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ModelError::ForeignKey { .. }), "{text}");
        assert!(text.contains(&format!("`{key}`")) && text.contains(said) && !text.contains('\n'), "{key}: {text}");
    }
    // Sizes that contradict each other are found by the decoder's own checks.
    let mut config = golden("qwen3-tiny").config;
    config["num_key_value_heads"] = json!(3);
    assert!(read_config(&config).unwrap_err().to_string().contains("kv_heads"));
    assert!(read_config(&json!([1])).is_err());
    // Sizes of nobody's files cost no memory: the shapes are compared first.
    let mut config = golden("gpt-oss-tiny").config;
    for key in ["hidden_size", "intermediate_size", "vocab_size"] {
        config[key] = json!(1_u64 << 31);
    }
    config["num_local_experts"] = json!(1000);
    let read = read_config(&config).unwrap();
    let import = Import::new(&read.model, read.vocab_size).unwrap();
    assert!(
        import.check([("model.embed_tokens.weight", &[11, 16][..])]).unwrap_err().to_string().contains("2147483648")
    );
}

#[test]
fn a_model_of_no_class_is_refused_with_the_key() {
    for (text, said) in [
        ("preset = \"llama-d64\"\nparametrization = \"mup\"", "`parametrization` is \"mup\""),
        ("preset = \"llama-d64\"\nnorm = \"layer_norm\"", "`norm` is \"layer_norm\""),
        ("preset = \"llama-d64\"\nqk_norm = \"full_width\"", "`qk_norm` is \"full_width\""),
        ("preset = \"llama-d64\"\nfull_every = 2", "`full_every` is 2"),
        ("preset = \"llama-d64\"\nd_model = 66\nhead_dim = 16", "multiple of `heads`"),
        ("preset = \"llama-d64\"\nfeed_forward = \"gelu\"", "`feed_forward` is \"gelu\""),
        ("preset = \"llama-d64\"\nnorm_bias = true", "`norm_bias` is true"),
        ("preset = \"nanogpt-char\"\nkv_heads = 2", "`kv_heads` is 2"),
        ("preset = \"nanogpt-char\"\nhead_dim = 16", "`d_model` / `heads`"),
        ("preset = \"olmoe-tiny\"\nhead_dim = 16", "`d_model` / `heads`"),
        ("preset = \"olmoe-tiny\"\nsinks = true", "`sinks` is true"),
        ("preset = \"gpt-oss-tiny\"\nrope_base_sliding = 5.0", "`rope_base_sliding` is 5"),
        ("preset = \"gpt-oss-tiny\"\nexpert_bias = false", "`expert_bias` is false"),
        ("preset = \"gemma3-tiny\"\nscale_embedding = false", "`scale_embedding` is false"),
    ] {
        let config: ModelConfig = toml::from_str(text).unwrap();
        let error = write_config(&config, 65, None).unwrap_err();
        assert!(matches!(error, ModelError::NoForeignClass { .. }), "{error}");
        assert!(error.to_string().contains(said), "{text}: {error}");
        assert_eq!(Import::new(&config, 65).unwrap_err(), error);
    }
}

/// Whatever a file says: it is read, or refused in one line that names the key.
#[test]
fn any_value_of_any_key_is_followed_or_refused_in_one_line() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(7),
        json!(2.5),
        json!(1e300),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!({}),
        json!(["sliding_attention"]),
        json!({ "full_attention": { "rope_type": "yarn" } }),
        json!({ "sliding_attention": null, "full_attention": null }),
    ];
    let (mut followed, mut refused) = (0, 0);
    for (preset, golden) in goldens() {
        let keys: Vec<String> = golden.config.as_object().unwrap().keys().cloned().collect();
        for (key, value) in keys.iter().flat_map(|key| odd.iter().map(move |value| (key, value))) {
            let mut config = golden.config.clone();
            config[key] = value.clone();
            match read_config(&config) {
                Ok(read) => {
                    followed += 1;
                    Import::new(&read.model, read.vocab_size).unwrap();
                    let back = read_config(&write_config(&read.model, read.vocab_size, None).unwrap()).unwrap();
                    assert_eq!(back.model, read.model, "{preset}: {key} = {value}");
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
    assert!(followed > 500 && refused > 500, "{followed} followed, {refused} refused");
}
