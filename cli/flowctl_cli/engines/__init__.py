"""The Inngest engines that `flowctl dev` can start: embedded, in Docker, a binary; or one at a URL."""
