"""The store: artefacts of finished jobs, one folder per job id, published by a rename.

    jobs/<id[:2]>/<id>/     manifest.json and the files it lists, with size and sha256
    contents/<sha256>       files that artefacts have, to which equal ones become hard links
    failures/<id>.json      status and message of the last failed attempt, until one succeeds
    partial/<id>.<writer>/  artefacts that are being written, each by one writer alone
    corrupt/<id>.<random>/  artefacts that were set aside because they differ from their manifest
    leases/<id>             who computes a job now; spares double work
    runs/                   the folders of runs elsewhere that use the store
    unfinished/<id>         a training that was interrupted, until it is finished
    datasets/               decoded images, which transferbench.data keeps
    compiled/               code that torch has compiled for large networks: a cache

Several hosts may share a store. Nothing but speed rests on leases: drafts have names of their own,
a rename onto a finished artefact means that another writer published it first, and an artefact is
set aside only where it is damaged, by a rename that is undone if it was not. Readers need no lock.
Rejected: joblib.Memory, diskcache and zarr, none of which publishes a set of files atomically,
verifies them by digest and records failures.
"""

from __future__ import annotations

from transferbench.store.archive import Imported, export_jobs, import_jobs
from transferbench.store.artefact import Artefact, CorruptArtefactError
from transferbench.store.contents import CONTENTS, share, unused_contents
from transferbench.store.documents import MANIFEST, PAYLOAD, Failure, Manifest
from transferbench.store.draft import Draft
from transferbench.store.lease import WaitEvent, Waiting, silent
from transferbench.store.store import Store, store_around

__all__ = [
    "CONTENTS",
    "MANIFEST",
    "PAYLOAD",
    "Artefact",
    "CorruptArtefactError",
    "Draft",
    "Failure",
    "Imported",
    "Manifest",
    "Store",
    "WaitEvent",
    "Waiting",
    "export_jobs",
    "import_jobs",
    "share",
    "silent",
    "store_around",
    "unused_contents",
]
