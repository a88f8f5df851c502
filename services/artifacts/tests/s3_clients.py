"""What real S3 clients do, against the endpoint at the root and below /s3. Fails by an assertion."""

import io
import os
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

BUCKET = "mlpipeline"


def boto(endpoint, tenant, **config):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=os.environ[f"KEY_{tenant}"],
        aws_secret_access_key=os.environ[f"SECRET_{tenant}"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config),
    )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return
    raise AssertionError(f"{call} was not refused with {code}")


def with_boto3(endpoint, folder):
    s3 = boto(endpoint, "A")
    key = f"{folder}/a b+c=ü'()*!.txt"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"hello", ContentType="text/x-mine", Metadata={"kind": "demo"})
    got = s3.get_object(Bucket=BUCKET, Key=key)
    assert got["Body"].read() == b"hello" and got["ContentType"] == "text/x-mine" and got["Metadata"] == {"kind": "demo"}
    assert s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=1-3")["Body"].read() == b"ell"
    assert s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=-2")["Body"].read() == b"lo"
    head = s3.head_object(Bucket=BUCKET, Key=key)
    assert head["ContentLength"] == 5 and head["ETag"] == got["ETag"]
    refused("InvalidRange", s3.get_object, Bucket=BUCKET, Key=key, Range="bytes=9-")
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=f"{folder}/none")
    refused("404", s3.head_object, Bucket=BUCKET, Key=f"{folder}/none")
    refused("NoSuchBucket", s3.get_object, Bucket="nothing", Key="x")
    refused("304", s3.get_object, Bucket=BUCKET, Key=key, IfNoneMatch=got["ETag"])
    refused("PreconditionFailed", s3.get_object, Bucket=BUCKET, Key=key, IfMatch='"x"')

    # create-only
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/once", Body=b"1", IfNoneMatch="*")
    refused("PreconditionFailed", s3.put_object, Bucket=BUCKET, Key=f"{folder}/once", Body=b"2", IfNoneMatch="*")
    assert s3.get_object(Bucket=BUCKET, Key=f"{folder}/once")["Body"].read() == b"1"

    # every checksum that boto3 computes itself, in a header and (for streams) behind the body
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        s3.put_object(Bucket=BUCKET, Key=f"{folder}/sum", Body=b"x" * 70000, ChecksumAlgorithm=algorithm)
        s3.put_object(Bucket=BUCKET, Key=f"{folder}/sum", Body=io.BytesIO(b"x" * 70000), ChecksumAlgorithm=algorithm)
    refused("BadDigest", s3.put_object, Bucket=BUCKET, Key=f"{folder}/wrong", Body=b"x", ChecksumCRC32="AAAAAA==")
    refused("404", s3.head_object, Bucket=BUCKET, Key=f"{folder}/wrong")
    unsigned = boto(endpoint, "A", signature_version="s3v4", request_checksum_calculation="when_required")
    unsigned.put_object(Bucket=BUCKET, Key=f"{folder}/plain", Body=io.BytesIO(b"y" * 70000))

    # listings
    names = [f"{folder}/list/{n}" for n in ["a-b", "a.txt", "a/1", "a/2", "b c", "z%41"]]
    for name in names:
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{folder}/list/", PaginationConfig={"PageSize": 2})
    assert [o["Key"] for page in pages for o in page["Contents"]] == names
    pages = s3.get_paginator("list_objects").paginate(Bucket=BUCKET, Prefix=f"{folder}/list/", PaginationConfig={"PageSize": 2})
    assert [o["Key"] for page in pages for o in page["Contents"]] == names
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/list/", Delimiter="/")
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == [f"{folder}/list/a/"] and page["KeyCount"] == 5
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/list/", StartAfter=names[3])["KeyCount"] == 2
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="nothing")

    # copies
    s3.copy_object(Bucket=BUCKET, Key=f"{folder}/copy", CopySource={"Bucket": BUCKET, "Key": key})
    copied = s3.get_object(Bucket=BUCKET, Key=f"{folder}/copy")
    assert copied["Body"].read() == b"hello" and copied["Metadata"] == {"kind": "demo"}
    source = {"Bucket": BUCKET, "Key": key}
    s3.copy_object(Bucket=BUCKET, Key=f"{folder}/copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "1"})
    assert s3.head_object(Bucket=BUCKET, Key=f"{folder}/copy")["Metadata"] == {"n": "1"}

    # a large file goes in parts, up and down
    data = os.urandom(17 * 1024 * 1024 + 5)
    config = TransferConfig(multipart_threshold=5 * 1024 * 1024, multipart_chunksize=5 * 1024 * 1024)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, f"{folder}/large", Config=config, ExtraArgs={"ContentType": "x/y"})
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, f"{folder}/large", back, Config=config)
    assert back.getvalue() == data
    assert s3.head_object(Bucket=BUCKET, Key=f"{folder}/large")["ContentType"] == "x/y"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/parts")["UploadId"]
    place = {"Bucket": BUCKET, "Key": f"{folder}/parts", "UploadId": upload}
    second = s3.upload_part(**place, PartNumber=2, Body=b"two")["ETag"]
    first = s3.upload_part(**place, PartNumber=1, Body=b"one")["ETag"]
    third = s3.upload_part_copy(**place, PartNumber=3, CopySource=source, CopySourceRange="bytes=0-3")["CopyPartResult"]["ETag"]
    assert [p["PartNumber"] for p in s3.list_parts(**place)["Parts"]] == [1, 2, 3]
    assert [u["Key"] for u in s3.list_multipart_uploads(Bucket=BUCKET, Prefix=folder)["Uploads"]] == [f"{folder}/parts"]
    wrong = {"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}
    refused("InvalidPart", s3.complete_multipart_upload, **place, MultipartUpload=wrong)
    parts = [{"PartNumber": n, "ETag": e} for n, e in [(1, first), (2, second), (3, third)]]
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=BUCKET, Key=f"{folder}/parts")["Body"].read() == b"onetwohell"
    refused("NoSuchUpload", s3.upload_part, **place, PartNumber=1, Body=b"x")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=f"{folder}/gone")["UploadId"]
    s3.abort_multipart_upload(Bucket=BUCKET, Key=f"{folder}/gone", UploadId=upload)

    # presigned; boto3 uses signature version 2 unless told otherwise
    for signer in [s3, boto(endpoint, "A", signature_version="s3v4")]:
        url = signer.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key, "ResponseContentType": "a/b"}, ExpiresIn=60)
        with urllib.request.urlopen(url) as response:
            assert response.read() == b"hello" and response.headers["Content-Type"] == "a/b"
        url = signer.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": f"{folder}/pre"}, ExpiresIn=60)
        urllib.request.urlopen(urllib.request.Request(url, data=b"signed", method="PUT"))
        assert s3.get_object(Bucket=BUCKET, Key=f"{folder}/pre")["Body"].read() == b"signed"
        try:
            urllib.request.urlopen(urllib.request.Request(url.replace("pre?", "other?"), data=b"x", method="PUT"))
            raise AssertionError("a changed url was accepted")
        except urllib.error.HTTPError as error:
            assert error.code == 403

    # deletes
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names[:2] + ["none & <x>"]]})
    assert len(gone["Deleted"]) == 3, gone
    s3.delete_object(Bucket=BUCKET, Key=names[2])
    s3.delete_object(Bucket=BUCKET, Key=names[2])
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/list/")["KeyCount"] == 3

    # buckets
    bucket = f"own-{folder}"
    s3.create_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)
    assert {BUCKET, bucket} <= {b["Name"] for b in s3.list_buckets()["Buckets"]}
    s3.put_object(Bucket=bucket, Key="x", Body=b"x")
    refused("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    refused("NotImplemented", s3.get_bucket_acl, Bucket=bucket)

    # the other tenant
    other = boto(endpoint, "B")
    refused("AccessDenied", other.get_object, Bucket=BUCKET, Key=key)
    refused("AccessDenied", other.put_object, Bucket=BUCKET, Key=key, Body=b"x")
    refused("AccessDenied", other.copy_object, Bucket=BUCKET, Key=f"{folder}/stolen", CopySource=source)
    refused("AccessDenied", other.list_objects_v2, Bucket=bucket)
    assert other.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert bucket not in {b["Name"] for b in other.list_buckets()["Buckets"]}
    s3.delete_object(Bucket=bucket, Key="x")
    s3.delete_bucket(Bucket=bucket)
    refused("404", s3.head_bucket, Bucket=bucket)

    # wrong secret, unknown key
    bad = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=os.environ["KEY_A"], aws_secret_access_key="x", region_name="us-east-1")
    refused("SignatureDoesNotMatch", bad.list_buckets)
    bad = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="minio", aws_secret_access_key="minio123", region_name="us-east-1")
    refused("InvalidAccessKeyId", bad.list_buckets)


def with_minio(endpoint):
    host = endpoint.removeprefix("http://")
    client = Minio(host, access_key=os.environ["KEY_A"], secret_key=os.environ["SECRET_A"], secure=False)
    assert client.bucket_exists(bucket_name=BUCKET) and not client.bucket_exists(bucket_name="nothing")
    client.put_object(bucket_name=BUCKET, object_name="minio/x", data=io.BytesIO(b"hello"), length=5)
    response = client.get_object(bucket_name=BUCKET, object_name="minio/x", offset=1, length=3)
    assert response.read() == b"ell"
    data = os.urandom(11 * 1024 * 1024)
    client.put_object(bucket_name=BUCKET, object_name="minio/large", data=io.BytesIO(data), length=-1, part_size=5 * 1024 * 1024)
    assert client.get_object(bucket_name=BUCKET, object_name="minio/large").read() == data
    assert client.stat_object(bucket_name=BUCKET, object_name="minio/large").size == len(data)
    names = [o.object_name for o in client.list_objects(bucket_name=BUCKET, prefix="minio/", recursive=True)]
    assert names == ["minio/large", "minio/x"]
    with urllib.request.urlopen(client.presigned_get_object(bucket_name=BUCKET, object_name="minio/x")) as response:
        assert response.read() == b"hello"
    errors = client.remove_objects(bucket_name=BUCKET, delete_object_list=[DeleteObject(name) for name in names])
    assert list(errors) == []
    try:
        client.stat_object(bucket_name=BUCKET, object_name="minio/x")
        raise AssertionError("it was deleted")
    except S3Error as error:
        assert error.code == "NoSuchKey"
    for key, secret, code in [("minio", "minio123", "InvalidAccessKeyId"), (os.environ["KEY_A"], "x", "SignatureDoesNotMatch")]:
        bad = Minio(host, access_key=key, secret_key=secret, secure=False)
        try:
            list(bad.list_objects(bucket_name=BUCKET))
            raise AssertionError(f"{key} is not refused")
        except S3Error as error:
            assert error.code == code


if __name__ == "__main__":
    with_boto3(os.environ["S3_PREFIXED"], "prefixed")
    if root := os.environ.get("S3_ROOT"):
        with_boto3(root, "root")
        with_minio(root)
    print("s3 clients:", "boto3", boto3.__version__, "ok")
