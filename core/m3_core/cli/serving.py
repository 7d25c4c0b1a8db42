"""``m3-retrieval serve``."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

from m3_core.cli.commands import new_app

app = new_app()


@app.command()
def serve(
    models: Annotated[
        list[str],
        Argument(help="Encoders and rerankers: MODEL, or NAME=MODEL to be asked for by NAME."),
    ],
    *,
    host: Annotated[str, Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, Option(min=0, max=65_535, help="Port to listen at; 0 for any that is free.")
    ] = 8000,
    api_key: Annotated[
        list[str] | None,
        Option(
            envvar="M3_API_KEY",
            help="Key that clients must send; several are allowed. Better in the environment.",
        ),
    ] = None,
    device: Annotated[str | None, Option(help="The fastest there is if absent.")] = None,
    dtype: Annotated[str, Option(help="float32, bfloat16, float16, int8 or auto.")] = "auto",
    max_length: Annotated[int | None, Option(help="Tokens a text at most.")] = None,
    max_texts: Annotated[int, Option(help="Texts, or pairs, a request at most.")] = 2048,
    max_tokens: Annotated[int, Option(help="Tokens a request at most.")] = 1 << 20,
    max_body: Annotated[int, Option(help="MiB of a request's body at most.")] = 32,
    max_requests: Annotated[int, Option(help="Requests at a time; others get 429.")] = 512,
    max_waiting_tokens: Annotated[
        int, Option(help="While more tokens wait, requests beyond a few texts get 429.")
    ] = 1 << 18,
    grace: Annotated[float, Option(help="Seconds for running requests after SIGTERM.")] = 30.0,
    log_level: Annotated[str, Option(help="debug, info, warning or error.")] = "info",
    ray: Annotated[
        bool, Option("--ray", help="Serve with Ray; the options below are its.")
    ] = False,
    ray_address: Annotated[
        str, Option(help="local starts Ray here, auto finds the cluster; or its address.")
    ] = "local",
    replicas: Annotated[
        int | None, Option(help="Processes with the models; by default one a GPU, or machine.")
    ] = None,
    max_replicas: Annotated[
        int | None, Option(help="Start more of them as tokens wait, up to so many.")
    ] = None,
    target_tokens: Annotated[
        int, Option(help="Tokens that may wait for each before there are more.")
    ] = 16_384,
    num_cpus: Annotated[float | None, Option(help="CPUs of each.")] = None,
    num_gpus: Annotated[float | None, Option(help="GPUs of each.")] = None,
) -> None:
    """Serve models over HTTP, to clients of OpenAI, TEI, Cohere, Jina and vLLM, and to ours."""
    from m3_core.extras import needs_extra

    needed = ("fastapi", "uvicorn", "orjson", "prometheus_client")
    with needs_extra("serve", "serve", *needed):
        for package in needed:
            importlib.import_module(package)

    from m3_core.server import ServerOptions, model_entries
    from m3_core.server import serve as run

    if not ray and (replicas or max_replicas or num_cpus or num_gpus or ray_address != "local"):
        raise BadParameter(
            "--ray-address, --replicas, --max-replicas, --num-cpus, --num-gpus are Ray's: add --ray"
        )
    loading: dict[str, Any] = {"device": device, "dtype": dtype, "max_length": max_length}
    entries = model_entries(models, **{k: one for k, one in loading.items() if one is not None})
    options = ServerOptions(
        api_keys=tuple(api_key or ()),
        max_texts=max_texts,
        max_tokens=max_tokens,
        max_body_bytes=max_body << 20,
        max_requests=max_requests,
        max_waiting_tokens=max_waiting_tokens,
    )
    if ray:
        from m3_core.server import RayServeOptions, serve_on_ray

        on_ray = RayServeOptions(
            address=ray_address,
            replicas=replicas,
            max_replicas=max_replicas,
            target_tokens=target_tokens,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        )
        serve_on_ray(entries, options, on_ray, host=host, port=port)
        return
    run(
        entries,
        options,
        host=host,
        port=port,
        grace_seconds=grace,
        log_level=log_level,
    )
