/**
 * A Docker daemon behind ssh: a local socket, each connection to it carried by one
 * `ssh HOST docker system dial-stdio`, as the docker program does it (rules.md C1.5).
 */
import { join } from "node:path";
import type { Socket } from "bun";
import { CommandError, KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";

export interface SshBridge extends AsyncDisposable {
  /** The local socket. */
  readonly unix: string;
  /** What ssh said when it failed. */
  lastWords(): string | undefined;
}

/** Bytes that may wait for ssh before the socket is told to pause. */
const HIGH_WATER_BYTES = 256 * 1024;

/**
 * The command for `ssh://[user@]host[:port][/path/of/socket]`.
 *
 * @throws {KoError} If the URL is none of these, or a part of it would be taken for an option.
 */
export function sshCommand(text: string, fail: (why: string) => KoError): readonly [string, ...string[]] {
  if (!URL.canParse(text)) throw fail("wanted ssh://user@host");
  const url = new URL(text);
  const [user, hostname] = [decode(url.username), url.hostname.replace(/^\[(.*)\]$/, "$1")];
  if (url.password !== "") throw fail("it holds a password; ssh takes keys");
  if (url.search !== "" || url.hash !== "") throw fail('it holds a "?" or a "#"');
  if (hostname === "" || hostname.startsWith("-")) throw fail("its host is no host name");
  if (user.startsWith("-")) throw fail("its user is no user name");
  const path = url.pathname === "/" ? "" : decode(url.pathname);
  // The remote shell reads it.
  if (!/^[\w./@:+-]*$/.test(path)) throw fail("the path of the socket may hold letters, digits and ./_-@:+");
  return [
    "ssh",
    "-o",
    "ConnectTimeout=30",
    "-T",
    ...(user === "" ? [] : ["-l", user]),
    ...(url.port === "" ? [] : ["-p", url.port]),
    "--",
    hostname,
    "docker",
    ...(path === "" ? [] : [`--host=unix://${path}`]),
    "system",
    "dial-stdio",
  ];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Listens on a socket in a temporary folder. The connections end with the bridge.
 *
 * @throws {KoError} If there is no ssh, or the socket cannot be made.
 */
export async function openSshBridge(host: Host, argv: readonly [string, ...string[]]): Promise<SshBridge> {
  if (host.findProgram(argv[0]) === undefined) {
    throw new KoError(`Cannot reach the Docker daemon: ${argv[0]} is not on PATH`, { hint: `Install ${argv[0]}.` });
  }
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await host.tempFolder("ko-ssh"));
  const unix = join(folder.path, "docker.sock");
  const running = new Set<Carrier>();
  let lastWords: string | undefined;
  const onFailure = (error: unknown): void => {
    lastWords = (error instanceof CommandError && error.stderr.trim()) || messageOf(error);
  };
  const server = Bun.listen<Carrier | undefined>({
    unix,
    data: undefined,
    socket: {
      open: (socket) => {
        const carrier = new Carrier(socket);
        socket.data = carrier;
        running.add(carrier);
        void carrier.run(host, { argv, onFailure }).then(() => running.delete(carrier));
      },
      data: (socket, chunk) => socket.data?.receive(chunk),
      drain: (socket) => socket.data?.drained(),
      close: (socket) => socket.data?.close(),
      error: (socket) => socket.data?.close(),
    },
  });
  stack.defer(async () => {
    server.stop(true);
    const all = [...running];
    for (const carrier of all) carrier.close();
    await Promise.all(all.map((carrier) => carrier.ended));
  });
  const closing = stack.move();
  return { unix, lastWords: () => lastWords, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

interface CarrierOptions {
  readonly argv: readonly [string, ...string[]];
  /** Called before the connection ends, so that whoever uses it finds the reason. */
  readonly onFailure: (error: unknown) => void;
}

/** One connection and the ssh that carries it. */
class Carrier {
  readonly #socket: Socket<Carrier | undefined>;
  readonly #over = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  #input: ReadableStreamDefaultController<Uint8Array> | undefined;
  #drained: PromiseWithResolvers<void> | undefined;

  constructor(socket: Socket<Carrier | undefined>) {
    this.#socket = socket;
  }

  /** Fulfilled when ssh has ended. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Ends when ssh has; never rejected. */
  async run(host: Host, { argv, onFailure }: CarrierOptions): Promise<void> {
    const stdin = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#input = controller),
        pull: () => this.#socket.resume(),
        cancel: () => void (this.#input = undefined),
      },
      { highWaterMark: HIGH_WATER_BYTES, size: (chunk) => chunk?.byteLength ?? 0 },
    );
    const signal = AbortSignal.any([host.signal, this.#over.signal]);
    try {
      await host.run(argv, { stdin, stdout: (chunk) => this.#send(chunk), signal, maxBytes: 64 * 1024 });
    } catch (error) {
      // Our side has ended it otherwise, and ssh's end tells nothing.
      if (!this.#over.signal.aborted) onFailure(error);
    } finally {
      this.#socket.end();
      this.#ended.resolve();
    }
  }

  receive(chunk: Uint8Array): void {
    // The socket's buffer is used again.
    this.#input?.enqueue(new Uint8Array(chunk));
    if ((this.#input?.desiredSize ?? 1) <= 0) this.#socket.pause();
  }

  drained(): void {
    this.#drained?.resolve();
  }

  close(): void {
    if (this.#over.signal.aborted) return;
    this.#drained?.resolve();
    try {
      this.#input?.close();
    } catch {
      // ssh has ended, and its input with it.
    }
    this.#over.abort(new Error("the connection is closed"));
  }

  async #send(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.byteLength && !this.#over.signal.aborted;) {
      const written = this.#socket.write(chunk.subarray(at));
      if (written < 0) return;
      at += written;
      if (at === chunk.byteLength) return;
      this.#drained = Promise.withResolvers();
      await this.#drained.promise;
    }
  }
}
