-- The C API through LuaJIT's FFI: open(library, header, path) -> model; model:ask(question) -> thought; thought:think(milliseconds) -> text, done.
local ffi = require("ffi")
local api, failure
local max_tokens = 1000 -- of an answer

local function check(code) return code == 0 or error(ffi.string(failure.message), 3) end

-- A struct with its size, the rest zero but for what is given.
local function sized(kind, members)
    local s = ffi.new("phi4flash_" .. kind, members or {})
    s.size = ffi.sizeof(s)
    return s
end

-- A new handle, destroyed with its last reference: handles keep alive what they need, so the order does not matter.
local function make(kind, create, ...)
    local out = ffi.new("phi4flash_" .. kind .. "*[1]")
    local arguments, n = {...}, select("#", ...)
    arguments[n + 1], arguments[n + 2] = out, failure
    check(api["phi4flash_" .. create](unpack(arguments, 1, n + 2)))
    return ffi.gc(out[0], api["phi4flash_" .. kind .. "_destroy"])
end

local thought, model = {}, {}
thought.__index, model.__index = thought, model

-- Goes on for some milliseconds, and one piece of work at least: the text that came, and whether the answer has ended.
function thought:think(milliseconds)
    local m = self.model
    if m.thought ~= self then return "", true end
    self.budget.microseconds = math.max(1, milliseconds * 1000) -- 0 would be no limit
    m.thought = nil -- an error ends it too
    check(api.phi4flash_generation_advance(m.generation, self.budget, self.event, failure))
    if self.event.kind ~= api.PHI4FLASH_EVENT_END then m.thought = self end
    return ffi.string(self.event.text, self.event.text_length), m.thought == nil
end

function thought:interrupt() return self.model.thought ~= self or check(api.phi4flash_generation_cancel(self.model.generation, failure)) end

function model:ask(question) -- ends the thought before
    local message = sized("chat_message", {role = "user", role_length = 4, content = question, content_length = #question})
    local count = ffi.new("size_t[1]")
    api.phi4flash_tokenizer_encode_chat(self.tokenizer, message, 1, nil, nil, 0, count, nil) -- how long?
    local room, prompt = count[0], ffi.new("int32_t[?]", count[0])
    check(api.phi4flash_tokenizer_encode_chat(self.tokenizer, message, 1, nil, prompt, room, count, failure))
    local session = make("session", "session_create", self.model, sized("session_options", {context = room + max_tokens}))
    check(api.phi4flash_generation_start(self.generation, session, prompt, room, failure))
    self.thought = setmetatable({model = self, budget = sized("budget"), event = sized("event")}, thought)
    return self.thought
end

return {open = function(library, header, path)
    if not failure then -- types can be declared once
        ffi.cdef((("\n" .. header):gsub("\n#[^\n]*", ""):gsub('extern "C" {', ""):gsub('\n} /[*] extern "C" [*]/', ""):gsub("PHI4FLASH_API ", "")))
        failure = ffi.new("phi4flash_error")
    end
    api = api or ffi.load(library) -- the first one, for all models
    local m = setmetatable({model = make("model", "model_open", path, #path, nil)}, model)
    m.tokenizer = make("tokenizer", "tokenizer_open", m.model)
    m.workspace = make("workspace", "workspace_create", m.model, sized("workspace_options", {chunk = 32})) -- short pieces of prompts
    m.generation = make("generation", "generation_create", m.workspace, m.tokenizer, sized("generation_options", {max_tokens = max_tokens}))
    return m
end}
