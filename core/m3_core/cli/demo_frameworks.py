"""The two frameworks in the demo: the code that is shown is the code that runs."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Snippet:
    """A few lines of code over one framework.

    Attributes:
        framework: Its name.
        package: What must be importable.
        extra: The extra of m3-retrieval that brings it.
        code: The lines; they know ``texts``, ``question`` and ``model``.
    """

    framework: str
    package: str
    extra: str
    code: str

    @property
    def is_installed(self) -> bool:
        """Whether the framework is there."""
        try:
            return find_spec(self.package) is not None
        except ModuleNotFoundError:
            return False

    @property
    def remedy(self) -> str:
        """What installs the framework."""
        return f"pip install 'm3-retrieval[{self.extra}]'"

    def run(self, texts: Sequence[str], question: str, model: str) -> list[str]:
        """Execute the lines.

        Args:
            texts: What they search.
            question: What they search for.
            model: Name of the model.

        Returns:
            The lines that they printed.
        """
        output = io.StringIO()
        names = {"texts": list(texts), "question": question, "model": model}
        with redirect_stdout(output):
            exec(compile(self.code, f"<{self.framework}>", "exec"), names)
        return output.getvalue().splitlines()


SNIPPETS = (
    Snippet(
        "LangChain",
        "langchain_core",
        "langchain",
        """\
from langchain_m3 import M3HybridRetriever
retriever = M3HybridRetriever(model_name=model, rerank=True)
retriever.add_texts(texts)
for document in retriever.invoke(question, k=3):
    print(document.page_content)
""",
    ),
    Snippet(
        "LlamaIndex",
        "llama_index.core",
        "llamaindex",
        """\
from llama_index.core.schema import TextNode
from llamaindex_m3 import M3Index
index = M3Index([TextNode(text=text) for text in texts], model_name=model)
for hit in index.as_retriever(similarity_top_k=3).retrieve(question):
    print(hit.text)
""",
    ),
)
