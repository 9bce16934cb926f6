"""HTTP in front of the service: `uvicorn tasks.app:app`."""

from __future__ import annotations

import os
import time
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from spoolproof import StoreUnavailable
from spoolproof.errors import NotFound
from tasks.faults import FAULTS
from tasks.service import Export, User, load_profile, profiles, service

app = FastAPI(lifespan=service.lifespan)
GUEST = {"name": "Somebody", "email": ""}


class NewUser(BaseModel):
    name: str
    email: str


class NewTask(BaseModel):
    user_id: str
    title: str
    due_in_seconds: float = 0


@app.put("/users/{user_id}")
async def put_user(user_id: str, given: NewUser) -> dict[str, str]:
    async with service.transaction() as tx:
        await tx.execute(
            "insert into app_user (id, name, email) values ($1, $2, $3) "
            "on conflict (id) do update set name = excluded.name, email = excluded.email",
            user_id,
            given.name,
            given.email,
        )
    await profiles.remove(user_id)  # from now on nobody is served the old one, in no process
    return {"id": user_id, **given.model_dump()}


@app.get("/users/{user_id}")
async def get_user(user_id: str, response: Response) -> dict[str, object]:
    """The profile; if it cannot be had, the last one there was; if there was none, a stand-in that says so."""
    try:
        served = await profiles.fetch(user_id, load_profile)
    except (OSError, TimeoutError, StoreUnavailable) as error:
        response.headers["Tasks-Rung"] = "default"
        return {"id": user_id, **GUEST, "why": str(error) or type(error).__name__}
    user: User | None = served.value
    if user is None:
        raise HTTPException(404, f"there is no user {user_id!r}")
    response.headers.update(served.headers("tasks"))
    response.headers["Tasks-Rung"] = "live" if served.fresh else "cached"
    return {"id": user.id, "name": user.name, "email": user.email}


@app.post("/tasks", status_code=201)
async def post_task(given: NewTask) -> dict[str, str]:
    task_id = uuid4().hex
    async with service.transaction() as tx:
        await tx.execute(
            "insert into app_task (id, user_id, title, due_at) values ($1, $2, $3, $4)",
            task_id,
            given.user_id,
            given.title,
            time.time() + given.due_in_seconds,
        )
    return {"id": task_id}


@app.get("/tasks/{task_id}")
async def get_task(task_id: str) -> dict[str, object]:
    async with service.transaction() as tx:
        row = await tx.fetch_one("select * from app_task where id = $1", task_id)
    if row is None:
        raise HTTPException(404, f"there is no task {task_id!r}")
    return dict(row)


@app.post("/exports", status_code=202)
async def post_exports(user_ids: list[str]) -> dict[str, object]:
    receipt = await service.batches.submit("export", [Export(one) for one in user_ids])
    return {"batch_id": receipt.batch_id, "total": receipt.total}


@app.get("/batches")
async def get_batches() -> list[dict[str, object]]:
    return await service.batches.ls(limit=20)


@app.get("/batches/{batch_id}")
async def get_batch(batch_id: str) -> Response:
    """200 all, 202 it runs, 207 some, 422 all invalid, 503 none ran."""
    try:
        report = await service.batches.get(batch_id)
    except NotFound as error:
        raise HTTPException(404, str(error)) from error
    return Response(report.to_json(), status_code=report.status_code, media_type="application/json")


if os.environ.get("TASKS_FAULTS"):

    @app.post("/faults", status_code=204)
    async def post_faults(database: str | None = None, export: str | None = None) -> None:
        FAULTS.put(database=database, export=export)


app.mount("/", service.health)
