/**
 * `--also-push`: publishes images to further repositories. All places store an image before one of them moves a tag.
 */
import type { Built, ImageSink, Published, PublishHint } from "./image.ts";
import type { Publisher } from "./publish.ts";

export interface AlsoPublisherOptions {
  /** The place whose references are printed. */
  readonly main: Publisher;
  readonly others: readonly OtherPlace[];
}

export interface OtherPlace {
  readonly publisher: Publisher;
  /** The name of an image there. @param name in the main place */
  readonly nameOf: (name: string) => string;
}

/** Publishes to all places. An image that one of them refuses gets no tag in any. */
export function alsoPublisher({ main, others }: AlsoPublisherOptions): Publisher {
  return {
    open: (name) => {
      const first = main.open(name);
      const further = others.map(({ nameOf, publisher }) => publisher.open(nameOf(name)));
      return new AlsoSink(first, further);
    },
    finish: async () => {
      await main.finish();
      for (const { publisher } of others) await publisher.finish();
    },
  };
}

class AlsoSink implements ImageSink {
  readonly #main: ImageSink;
  readonly #others: readonly ImageSink[];

  constructor(main: ImageSink, others: readonly ImageSink[]) {
    this.#main = main;
    this.#others = others;
  }

  addLayer(...layer: Parameters<ImageSink["addLayer"]>): void {
    for (const sink of [this.#main, ...this.#others]) sink.addLayer(...layer);
  }

  async publish(image: Built, hint: PublishHint): Promise<Published> {
    await Promise.all([this.#main, ...this.#others].map(async (sink) => sink.store?.(image)));
    const published = await this.#main.publish(image, hint);
    const also = await Promise.all(this.#others.map((sink) => sink.publish(image, hint)));
    return {
      ...published,
      all: [...published.all, ...also.flatMap(({ all }) => all)],
      also: also.map(({ reference }) => reference),
    };
  }
}
