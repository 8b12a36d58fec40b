// The model's thread: the page stays alive while it computes. Everything comes from the page's own folder.
import { Model, modelFiles } from "./model.mjs";

const bytesOf = async (name) => {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
    return answer.arrayBuffer();
};

const opened = (async () => {
    const module = await WebAssembly.compile(await bytesOf("answer.wasm"));
    return Model.open(module, await Promise.all(modelFiles.map((name) => bytesOf(`model/${name}`))));
})();

opened.then((model) => postMessage({ ready: model.target }), (why) => postMessage({ failed: why.message }));

onmessage = async ({ data }) => {
    try {
        const model = await opened;
        const begin = performance.now();
        let tokens = 0;
        for (const text of model.answer(data)) {
            ++tokens;
            postMessage({ text });
        }
        postMessage({ done: { tokens, seconds: (performance.now() - begin) / 1000 } });
    } catch (why) {
        postMessage({ failed: why.message });
    }
};
