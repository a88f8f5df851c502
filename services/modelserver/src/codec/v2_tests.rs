use super::*;

fn read(body: &str) -> Result<InferRequest, String> {
    read_v2(body.as_bytes(), None).map_err(|error| error.text)
}

fn tensor(name: &str, shape: &[usize], data: Data) -> Tensor {
    Tensor {
        name: name.into(),
        shape: shape.to_vec(),
        data,
    }
}

#[test]
fn members_come_in_any_order_nested_or_flat() {
    let want = tensor("x", &[2, 2], Data::Fp32(vec![1.0, 2.0, 3.0, 4.0]));
    for body in [
        r#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}"#,
        r#"{"inputs":[{"data":[[1,2],[3,4]],"datatype":"FP32","parameters":null,"shape":[2,2],"name":"x"}],"id":"7"}"#,
        r#"{"parameters":{"a":{"b":[1]}},"inputs":[{"name":"x","shape":[2,2],"data":[1,2,3,4.0],"datatype":"FP32"}],"id":"7","outputs":null}"#,
    ] {
        let request = read(body).unwrap();
        assert_eq!(
            (request.inputs, request.id.as_deref()),
            (vec![want.clone()], Some("7")),
            "{body}"
        );
    }
}

#[test]
fn each_fault_of_the_client_is_named() {
    let with = |input: &str| format!(r#"{{"inputs":[{input}]}}"#);
    for (body, text) in [
        (
            "{}".into(),
            r#"field "inputs": is missing; send {"inputs": [{"name", "shape", "datatype", "data"}]}"#,
        ),
        (
            r#"{"inputs":[]}"#.into(),
            r#"field "inputs": is empty; send at least one tensor"#,
        ),
        (
            r#"{"inputs":{}}"#.into(),
            r#"field "inputs": expected a list of tensors"#,
        ),
        (with("1"), r#"field "inputs[0]": expected an object"#),
        (with(r#"{"shape":[1]}"#), r#"field "inputs[0].name": is missing"#),
        (
            with(r#"{"name":"x","datatype":"FP32","data":[1]}"#),
            r#"tensor "x", field "shape": is missing"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"data":[1]}"#),
            r#"tensor "x", field "datatype": is missing"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"FP32"}"#),
            r#"tensor "x", field "data": is missing"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"float","data":[1]}"#),
            r#"tensor "x", field "datatype": "float" is not one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES"#,
        ),
        (
            with(r#"{"name":"x","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5]}"#),
            r#"tensor "x", field "data": has 5 elements, but shape [2,3] needs 6"#,
        ),
        (
            with(r#"{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2,3,4]]}"#),
            r#"tensor "x", field "data": is nested as [1,4], but shape is [2,2]"#,
        ),
        (
            with(r#"{"name":"x","shape":[-1,2],"datatype":"FP32","data":[1]}"#),
            r#"tensor "x", field "shape": element 0 is -1, expected a whole number of 0 or more"#,
        ),
        (
            with(r#"{"name":"x","shape":[99999999999,99999999999],"datatype":"FP32","data":[1]}"#),
            r#"tensor "x", field "data": has 1 elements, but shape [99999999999,99999999999] needs more than memory holds"#,
        ),
        (
            with(r#"{"name":"x","shape":[2],"datatype":"FP32","data":[1,"two"]}"#),
            r#"tensor "x", field "data": element 1 is "two", expected FP32"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"UINT8","data":[256]}"#),
            r#"tensor "x", field "data": element 0 is 256, which UINT8 cannot hold"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"INT64","data":[1.5]}"#),
            r#"tensor "x", field "data": element 0 is 1.5, but INT64 has no fractions"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"FP16","data":[1.5]}"#),
            r#"tensor "x", field "datatype": FP16 cannot be sent as JSON; send FP32, or use the binary tensor extension"#,
        ),
        (
            with(r#"{"name":"x","shape":[1],"datatype":"BYTES","data":[1]}"#),
            r#"tensor "x", field "data": element 0 is 1, expected a text (datatype is BYTES)"#,
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1"#.into(),
            "request body is not valid JSON: unexpected end of input, expected `,` or `]` at line 1 column 63 (byte 62)",
        ),
        (
            "{\"inputs\":\n [}".into(),
            "request body is not valid JSON: expected a value at line 2 column 3 (byte 13)",
        ),
        (r#"{"id":7,"inputs":[]}"#.into(), r#"field "id": expected a text"#),
    ] {
        assert_eq!(read(&body).unwrap_err(), text, "{body}");
    }
}

#[test]
fn binary_tensors_follow_the_json() {
    let json = br#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}"#;
    let mut body = json.to_vec();
    for value in [1.5f32, -2.0] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    body.extend_from_slice(&[2, 0, 0, 0, b'h', b'i']);
    let request = read_v2(&body, Some(json.len())).unwrap();
    assert_eq!(
        request.inputs,
        [
            tensor("x", &[2], Data::Fp32(vec![1.5, -2.0])),
            tensor("t", &[1], Data::Bytes(vec![b"hi".to_vec()]))
        ]
    );
    let short = read_v2(&body[..body.len() - 3], Some(json.len()))
        .unwrap_err()
        .text;
    assert_eq!(
        short,
        r#"tensor "t", field "parameters": binary_data_size is 6, but 3 bytes are left in the body"#
    );
    body.push(0);
    assert_eq!(
        read_v2(&body, Some(json.len())).unwrap_err().text,
        "1 bytes follow the last binary tensor"
    );
    let beyond = read_v2(&body, Some(10_000)).unwrap_err().text;
    assert!(
        beyond.starts_with("header \"Inference-Header-Content-Length\": is 10000, but the body has"),
        "{beyond}"
    );
}

#[test]
fn responses_carry_what_was_asked() {
    let outputs = [
        tensor("a", &[2], Data::Fp32(vec![0.5, 1.0])),
        tensor("b", &[1], Data::Int64(vec![3])),
    ];
    let mut request = InferRequest {
        id: Some("q\"".into()),
        ..InferRequest::default()
    };
    let all = write_v2("m", &request, &outputs).unwrap();
    assert_eq!(
        String::from_utf8(all.body).unwrap(),
        r#"{"model_name":"m","model_version":"1","id":"q\"","outputs":[{"name":"a","shape":[2],"datatype":"FP32","data":[0.5,1.0]},{"name":"b","shape":[1],"datatype":"INT64","data":[3]}]}"#
    );
    request.outputs = vec![RequestedOutput {
        name: "b".into(),
        binary: Some(true),
    }];
    let binary = write_v2("m", &request, &outputs).unwrap();
    let length = binary.json_length.unwrap();
    assert!(
        binary.body[..length].ends_with(
            br#"{"name":"b","shape":[1],"datatype":"INT64","parameters":{"binary_data_size":8}}]}"#
        )
    );
    assert_eq!(binary.body[length..], 3i64.to_le_bytes());
    request.outputs[0].name = "c".into();
    let error = write_v2("m", &request, &outputs).unwrap_err().text;
    assert_eq!(
        error,
        r#"field "outputs": "c" is not an output of this model, which has "a", "b""#
    );
}
