// The page's thread: draws, and counts how long it was kept from drawing.
const byId = (id) => document.getElementById(id);
const answer = byId("answer"), status = byId("status"), button = document.querySelector("button");
const worker = new Worker("worker.js", { type: "module" });

let longest = 0, last = performance.now(), counting = false;
setInterval(() => {
    const now = performance.now();
    if (counting) longest = Math.max(longest, now - last);
    last = now;
}, 4);

worker.onmessage = ({ data }) => {
    if (data.ready) {
        status.textContent = `ready: ${data.ready}`;
        if (new URLSearchParams(location.search).has("ask")) ask();
    } else if (data.text) {
        answer.textContent += data.text;
    } else if (data.done) {
        counting = false;
        const written = `${data.done.tokens} tokens in ${data.done.seconds.toFixed(2)} s`;
        status.textContent = `${written}; this page was never busy for more than ${longest.toFixed(0)} ms`;
        document.title = "answered";
        button.disabled = false;
    } else {
        counting = false;
        button.disabled = false;
        status.textContent = data.failed;
        document.title = "failed";
    }
};

// One question at a time: the words of two would be mixed.
function ask() {
    button.disabled = true;
    answer.textContent = "";
    longest = 0;
    counting = true;
    status.textContent = "thinking ...";
    worker.postMessage(byId("question").value);
}
byId("form").onsubmit = (event) => {
    event.preventDefault();
    ask();
};
