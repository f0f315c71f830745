/**
 * What it means to the user that a container daemon refuses, or cannot be talked to, and what to do about it.
 */
import { KoError, messageOf, printable } from "./errors.ts";

export interface DaemonRefusalOptions {
  readonly status: number | undefined;
  readonly reason: string;
  readonly hint?: string | undefined;
}

/** The daemon understood and said no. */
export class DaemonRefusal extends KoError {
  override readonly name: string = "DaemonRefusal";
  /** Of HTTP; undefined for what arrived in the stream of a status 200. */
  readonly status: number | undefined;
  /** The daemon's words, printable. */
  readonly reason: string;

  constructor(message: string, options: DaemonRefusalOptions) {
    super(message, { hint: options.hint });
    this.status = options.status;
    this.reason = options.reason;
  }
}

/** What to do about what a daemon says. */
export function hintFor(words: string): string | undefined {
  if (/no space left on device|disk quota exceeded/i.test(words))
    return "Make room for the daemon: docker system prune";
  if (/HTTP request to an HTTPS server/i.test(words)) {
    return "It wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with its certificates.";
  }
  const version = /Minimum supported API version is (\d+\.\d+)|Maximum supported API version is (\d+\.\d+)/i.exec(
    words,
  );
  if (version !== null) return `Set DOCKER_API_VERSION=${version[1] ?? version[2]}`;
  return undefined;
}

const START = "Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.";
const CERTIFICATES =
  "Set DOCKER_CERT_PATH to the folder with its ca.pem, cert.pem and key.pem; for minikube: eval $(minikube docker-env)";

/**
 * Why an exchange failed, and a hint.
 *
 * @param error of `fetch`
 * @param options.isPing true for the first words: nothing has been understood yet
 */
export function explainFailure(
  error: unknown,
  { isPing }: { readonly isPing: boolean },
): readonly [why: string, hint?: string] {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|HOSTNAME_MISMATCH/.test(code)) {
    return [`its certificate is not trusted (${code})`, CERTIFICATES];
  }
  switch (code) {
    case "ENOENT":
      return ["there is no such socket", START];
    case "ECONNREFUSED":
      return ["nothing listens there", START];
    case "EACCES":
    case "EPERM":
      return ["permission denied", 'Be let in: sudo usermod -aG docker "$USER", then log in again.'];
    case "ENOTFOUND":
      return ["its host name is not known", "Correct DOCKER_HOST."];
    case "EPROTO":
      // Bun tells no more (1.4.5): a plain port and a refused client certificate look the same.
      return ["the TLS handshake failed: it refuses our certificate, or speaks no TLS on this port", CERTIFICATES];
    case "ECONNRESET":
    case "EPIPE":
      return isPing
        ? ["it closed the connection without an answer", CERTIFICATES]
        : [`it closed the connection before the end (${code})`, "See whether it still runs: docker info"];
    default: {
      const text = messageOf(error).replace(/ ?For more information, pass `verbose: true`.*$/s, "");
      return [printable(text, 400)];
    }
  }
}
