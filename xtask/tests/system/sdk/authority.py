"""Passes the authority of the job along with every request, in the libraries' own ways, and names the outcome of a case."""

import json
import os
from collections.abc import Callable

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

JOB = json.loads(os.environ["JOB"])
ORIGINALS, ORIGINAL = JOB["bucket"], JOB["key"]
BUCKET, FOLDER = "renditions", JOB["video_id"]


def add(params: dict, **_: object) -> None:
    params["headers"]["Txn-Token"] = os.environ["TXN_TOKEN"]


def awscli_initialize(events: object) -> None:
    """As a plugin of the AWS CLI (version 1: `[plugins]` in its configuration)."""
    events.register("before-call.s3", add)


def client(**more: object) -> object:
    """An S3 client of boto3 with every setting as it comes."""
    made = boto3.client("s3", **({"config": Config(**more)} if more else {}))
    made.meta.events.register("before-call.s3", add)
    return made


class Cases:
    """Outcomes of cases by name: `ok`, or the error's code as boto3 read it, or what failed."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.measured: dict[str, object] = {}

    def case(self, does: Callable[[], object]) -> None:
        try:
            found = does()
            outcome = "ok" if found in (None, True) else f"failed: {found!r}"
        except ClientError as error:
            outcome = f"{error.response['Error']['Code']} {error.response['ResponseMetadata']['HTTPStatusCode']}"
        except Exception as error:  # What else a library raises is the finding.
            outcome = f"failed: {error!r}"[:600]
        self.outcomes[does.__name__] = outcome

    def say(self) -> None:
        print(json.dumps({"outcomes": self.outcomes, "measured": self.measured}), flush=True)
