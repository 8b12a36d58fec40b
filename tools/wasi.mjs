// Runs a program that was compiled for WASI, in the folder where it is called: wasi.mjs PROGRAM [ARGUMENT...]
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const args = process.argv.slice(2);
const system = new WASI({ version: "preview1", args, preopens: { ".": "." } });
const module = await WebAssembly.compile(await readFile(args[0]));
process.exitCode = system.start(await WebAssembly.instantiate(module, system.getImportObject()));
