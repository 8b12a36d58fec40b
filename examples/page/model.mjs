// The module of answer.cpp, and the few functions of a system that it asks for.
export const modelFiles = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];

// WASI as far as the standard library wants it: a clock, and a way to complain. Anything else would be an error: 52 is ENOSYS.
function system(memory, complain) {
    const absent = () => 52;
    const functions = {
        clock_time_get(_clock, _precision, out) {
            new DataView(memory().buffer).setBigUint64(out, BigInt(Math.round(performance.now() * 1e6)), true);
            return 0;
        },
        fd_write(_file, pieces, count, written) {
            const view = new DataView(memory().buffer);
            let total = 0;
            for (let i = 0; i < count; ++i) {
                const at = view.getUint32(pieces + 8 * i, true), size = view.getUint32(pieces + 8 * i + 4, true);
                complain(new TextDecoder().decode(new Uint8Array(memory().buffer, at, size)));
                total += size;
            }
            view.setUint32(written, total, true);
            return 0;
        },
        proc_exit(code) { throw new Error(`the module ended with ${code}`); },
    };
    return new Proxy(functions, { get: (all, name) => all[name] ?? absent });
}

export class Model {
    // `module`: a WebAssembly.Module; `files`: an ArrayBuffer for each of modelFiles.
    static async open(module, files, complain = console.error) {
        const model = new Model();
        const imports = system(() => model.exports.memory, complain);
        const wanted = {};
        for (const { module: from, name } of WebAssembly.Module.imports(module)) (wanted[from] ??= {})[name] = imports[name];
        model.exports = (await WebAssembly.instantiate(module, wanted)).exports;
        model.exports._initialize();
        files.forEach((bytes, index) => {
            const at = model.exports.file(index, bytes.byteLength);
            if (at === 0) throw new Error(`no memory for ${modelFiles[index]}`);
            new Uint8Array(model.exports.memory.buffer).set(new Uint8Array(bytes), at);
        });
        if (model.exports.open() !== 0) throw new Error(model.text());
        return model;
    }

    // The answer, a piece of text at a time.
    *answer(question) {
        const words = new TextEncoder().encode(question);
        const at = this.exports.question(words.length);
        new Uint8Array(this.exports.memory.buffer).set(words, at);
        let more = this.exports.ask();
        for (more = more === 0 ? 1 : more; more > 0;) {
            more = this.exports.next();
            if (more >= 0 && this.exports.text_size() > 0) yield this.text();
        }
        if (more < 0) throw new Error(this.text());
    }

    text() { return this.string(this.exports.text(), this.exports.text_size()); }
    get target() {
        const bytes = new Uint8Array(this.exports.memory.buffer), at = this.exports.target();
        return this.string(at, bytes.indexOf(0, at) - at);
    }
    string(at, size) { return new TextDecoder().decode(new Uint8Array(this.exports.memory.buffer, at, size)); }
}
