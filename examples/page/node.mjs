// The same module in node: node.mjs FOLDER [QUESTION]. FOLDER is what run.sh makes.
import { readFile } from "node:fs/promises";
import { Model, modelFiles } from "./model.mjs";

const [folder, question = "What is 347 + 285?"] = process.argv.slice(2);
const bytesOf = async (name) => {
    const bytes = await readFile(`${folder}/${name}`);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const module = await WebAssembly.compile(await bytesOf("answer.wasm"));
const model = await Model.open(module, await Promise.all(modelFiles.map((name) => bytesOf(`model/${name}`))));
for (const text of model.answer(question)) process.stdout.write(text);
process.stdout.write("\n");
console.error(`${model.target}, ${(model.exports.memory.buffer.byteLength / 2 ** 20).toFixed(1)} MiB of memory`);
