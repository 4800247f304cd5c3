// How the page asks the server: one question, and an answer that comes line by line.

/** The server answers only the newest question of each kind that a tab asks. */
const tab = crypto.randomUUID();

/** Requests may arrive in another order than they are sent in: the server goes by their number. */
let asked = 0;

const headers = { "Content-Type": "application/json" };

/** What is said when nobody answers. */
const GONE = "The server does not answer: start patch-cli explore again, and open the address that it prints.";

async function post(name, body, signal) {
  asked += 1;
  const text = JSON.stringify({ tab, number: asked, ...body });
  const response = await fetch(`api/${name}`, { method: "POST", headers, body: text, signal });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

/** An error in words; null for one that was wanted. */
function inWords(error) {
  if (error.name === "AbortError") return null;
  return error instanceof TypeError ? GONE : error.message;
}

/** Asks, and hands each line of the answer, an object, to `act`. */
async function ask(name, body, act, signal) {
  try {
    const reader = (await post(name, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (!signal?.aborted) act(JSON.parse(line));
    }
  } catch (error) {
    const message = inWords(error);
    if (message !== null) act({ refused: { message } });
  }
}

/** A way to ask questions of one kind, of which only the newest is answered. */
export function newest(name) {
  let controller = null;
  return (body, act) => {
    controller?.abort();
    controller = new AbortController();
    return ask(name, body, act, controller.signal);
  };
}

/** The last line of the answer to a question. */
export async function once(name, body) {
  let last = {};
  await ask(name, body, (line) => (last = line));
  return last;
}

/** A file, as a blob. */
export async function file(body) {
  try {
    return { blob: await (await post("export", body)).blob() };
  } catch (error) {
    return { refused: { message: inWords(error) } };
  }
}
