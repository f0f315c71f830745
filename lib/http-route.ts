/**
 * How the requests of one client reach their servers: through which proxy, and with which certificate authorities.
 *
 * Rules: docs/rules.md A1.12, A11.8-A11.10. https://pkg.go.dev/net/http#ProxyFromEnvironment
 */
import { once } from "./async.ts";
import type { HostRules } from "./http-hosts.ts";
import type { SocksBridge } from "./http-socks.ts";
import { SystemTrust, type TrustOptions } from "./http-trust.ts";
import { chooseProxy, isSocks } from "./url.ts";

/** The options of `fetch` that a route decides. */
export interface RouteOptions {
  readonly proxy: string | false;
  readonly tls: TrustOptions;
}

/** The routes of one client. Disposing of it closes the bridges to SOCKS5 proxies. */
export class Route implements Disposable {
  readonly #env: Readonly<Record<string, string>>;
  readonly #trust: SystemTrust;
  /** By the URL of the SOCKS5 proxy. */
  readonly #opening = new Map<string, Promise<SocksBridge>>();
  readonly #bridges = new Map<string, SocksBridge>();

  /**
   * @param env holds the proxy variables and those of OpenSSL: see {@link chooseProxy} and {@link SystemTrust}
   * @param rules the user's, by host
   */
  constructor(env: Readonly<Record<string, string>>, rules?: HostRules) {
    this.#env = env;
    this.#trust = new SystemTrust(env, rules);
  }

  /** The proxy for `url` as the user names it, or false for none. */
  proxyFor(url: URL): string | false {
    return chooseProxy(url, this.#env);
  }

  /**
   * Sends a request on its route; a second time with the system's certificate authorities if it needs them.
   *
   * @throws what `fetch` throws. The `status` of the error is 407 if the proxy wants a password.
   */
  async send(url: URL, work: (options: RouteOptions) => Promise<Response>): Promise<Response> {
    const named = this.proxyFor(url);
    const proxy = named !== false && isSocks(named) ? (await this.#bridge(named)).url : named;
    const response = await this.#trust.connect(url, (tls) => work({ proxy, tls }));
    // For plain http this is an ordinary answer, for https `fetch` throws the same.
    if (response.status === 407 && proxy !== false) {
      throw Object.assign(new Error("the proxy wants a password"), { code: "ERR_PROXY_TUNNEL", status: 407 });
    }
    return response;
  }

  /** Why a SOCKS5 proxy did not connect to the host of `url`; undefined if it did, or there is none. */
  failure(url: URL): string | undefined {
    return this.#bridges.get(String(this.proxyFor(url)))?.failure(url);
  }

  [Symbol.dispose](): void {
    for (const bridge of this.#bridges.values()) bridge[Symbol.dispose]();
    this.#bridges.clear();
  }

  #bridge(proxy: string): Promise<SocksBridge> {
    return once(this.#opening, proxy, async () => {
      const { SocksBridge: Bridge } = await import("./http-socks.ts");
      const bridge = await Bridge.open(proxy);
      this.#bridges.set(proxy, bridge);
      return bridge;
    });
  }
}
