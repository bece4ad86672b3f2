package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

// name is how an echo server introduces itself: tests see by it where they have arrived.
func name() string {
	return os.Getenv("SERVICE_NAME") + " " + os.Getenv("POD_NAME") + "\n"
}

// serveTCP says its name, then sends back what comes, until the client has ended its half.
func serveTCP(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := fmt.Fprint(conn, name()); err != nil {
				return
			}
			if _, err := io.Copy(conn, conn); err != nil {
				log.Printf("tcp: %v", err)
			}
		}()
	}
}

// serveUDP answers each datagram with its name and the datagram.
func serveUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		count, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(append([]byte(name()), buffer[:count]...), from); err != nil {
			log.Printf("udp: %v", err)
		}
	}
}
